"""Tables off the compute device: in main memory, or on disk in the mapped store.

Rows are asked for as soon as their numbers are known, before the model begins, and waited for at the layer that needs them.
Rows on disk are requested from the drive all at once, since page faults one at a time leave it idle in between. A thread of its
own gathers many rows while the model computes; few rows are gathered by the caller when it gets there, which takes less time
than handing them to a thread and back.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from runtime.placement.row_source import RowSource
from runtime.vectors import LayerRows, Vectors

FEW_ROWS = 2048  # of a layer: gathering so many from memory takes about as long as the hand-over between two threads


class OffloadedPlacement:
    def __init__(self, tables: Mapping[int, RowSource], device: torch.device, on_disk: bool) -> None:
        self._tables, self._device, self._on_disk = tables, device, on_disk
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rows")

    def fetch(self, rows: LayerRows) -> Vectors:
        if next(iter(rows.values())).size > FEW_ROWS:
            waiting = {layer: self._thread.submit(self._gathered, layer, rows) for layer in rows}
            return lambda layer: waiting[layer].result()
        if self._on_disk:
            for layer, array in rows.items():
                self._tables[layer].read_ahead(array)
        return lambda layer: self._vectors(layer, rows)

    def _gathered(self, layer: int, rows: LayerRows) -> Tensor:
        """What the thread does for a layer; its turn for the first one asks the drive for the rows of all."""
        if self._on_disk and layer == min(rows):
            for each, array in rows.items():
                self._tables[each].read_ahead(array)
        return self._vectors(layer, rows)

    def _vectors(self, layer: int, rows: LayerRows) -> Tensor:
        """The rows of a layer side by side, (B, T, E)."""
        numbers = rows[layer]
        vectors = self._tables[layer].gather(numbers).reshape(*numbers.shape[:2], -1)
        return torch.from_numpy(vectors).to(self._device)
