"""Tables on the compute device, as float32."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from runtime.placement.row_source import RowSource
from runtime.vectors import LayerRows, Vectors


class DevicePlacement:
    def __init__(self, tables: Mapping[int, RowSource], device: torch.device) -> None:
        self._device = device
        self._weights = {layer: _decoded(table).to(device) for layer, table in tables.items()}

    @property
    def table_bytes(self) -> int:
        return sum(weight.nbytes for weight in self._weights.values())

    def fetch(self, rows: LayerRows) -> Vectors:
        numbers = {layer: torch.from_numpy(array).to(self._device) for layer, array in rows.items()}
        return lambda layer: functional.embedding(numbers[layer], self._weights[layer]).flatten(2)


def _decoded(table: RowSource) -> Tensor:
    """All rows of a table (rows, head_dim) as float32."""
    return torch.from_numpy(table.gather(np.arange(table.rows)))
