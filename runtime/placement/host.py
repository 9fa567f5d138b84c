"""Tables in main memory, or mapped from their files, off the compute device.

Rows are asked for as soon as their numbers are known, before the model begins, and waited for at the layer that needs them. A
thread of its own gathers many rows while the model computes; few are gathered by the caller when it gets there, which takes
less time than handing them to a thread and back.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from runtime.placement.row_source import RowSource, bytes_of
from runtime.vectors import LayerRows, Vectors

FEW_ROWS = 2048  # of a layer: gathering so many from memory takes about as long as the hand-over between two threads


class HostPlacement:
    def __init__(self, tables: Mapping[int, RowSource], device: torch.device) -> None:
        self._tables, self._device = tables, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rows")

    @property
    def table_bytes(self) -> int:
        return bytes_of(self._tables)

    def fetch(self, rows: LayerRows) -> Vectors:
        if are_few(rows):
            return lambda layer: self._vectors(layer, rows)
        waiting = {layer: self._thread.submit(self._vectors, layer, rows) for layer in rows}
        return lambda layer: waiting[layer].result()

    def _vectors(self, layer: int, rows: LayerRows) -> Tensor:
        """The rows of a layer side by side, (B, T, E)."""
        numbers = rows[layer]
        vectors = self._tables[layer].gather(numbers).reshape(*numbers.shape[:2], -1)
        return torch.from_numpy(vectors).to(self._device)


def are_few(rows: LayerRows) -> bool:
    return next(iter(rows.values())).size <= FEW_ROWS
