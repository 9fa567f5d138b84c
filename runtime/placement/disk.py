"""Tables on a drive, with as much of them in memory as they are given.

What is in memory of a step's rows is read when their numbers are known, and the drive is asked for the others, of all layers at
once: page faults one at a time would leave it idle in between. They are waited for at the layer that needs them. Many rows, and
those for a GPU, are read by a thread of its own, as in main memory.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from runtime.placement.host import are_few
from runtime.placement.row_source import RowSource, bytes_of
from runtime.placement.transfer import Transfer
from runtime.vectors import LayerRows, Vectors
from table.store.row_cache import Reading, RowCache

CACHE_BYTES = 256 << 20


class DiskPlacement:
    def __init__(self, tables: Mapping[int, RowSource], device: torch.device, memory: int) -> None:
        """`memory` in bytes, shared out among the layers by the size of their tables."""
        self._tables, self._device, self._transfer = tables, device, Transfer(device)
        self.caches = {
            layer: RowCache(table.files, table.row_bytes, memory * table.rows * table.row_bytes // bytes_of(tables))
            for layer, table in tables.items()
        }
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rows")

    @property
    def table_bytes(self) -> int:
        return bytes_of(self._tables)

    def fetch(self, rows: LayerRows) -> Vectors:
        if are_few(rows, self._device):
            begun = self._begun(rows)
            # What has all of its rows is made vectors now, while this code is in the processor's caches.
            there = {layer: self._sent(layer, rows, reading)() for layer, reading in begun.items() if not reading.is_pending}
            return lambda layer: there[layer] if layer in there else self._sent(layer, rows, begun[layer])()
        beginning = self._thread.submit(self._begun, rows)
        sent = {layer: self._thread.submit(self._begun_and_sent, layer, rows, beginning) for layer in rows}
        return lambda layer: sent[layer].result()()

    def _begun(self, rows: LayerRows) -> dict[int, Reading]:
        return {layer: self.caches[layer].begin(numbers) for layer, numbers in rows.items()}

    def _begun_and_sent(self, layer: int, rows: LayerRows, beginning: Future[dict[int, Reading]]) -> Callable[[], Tensor]:
        """In the thread, which has begun to read before."""
        return self._sent(layer, rows, beginning.result()[layer])

    def _sent(self, layer: int, rows: LayerRows, reading: Reading) -> Callable[[], Tensor]:
        """The rows of a layer side by side, (B, T, E)."""
        vectors = self._tables[layer].decoded(self.caches[layer].finish(reading))
        return self._transfer.send(vectors.reshape(*rows[layer].shape[:2], -1))
