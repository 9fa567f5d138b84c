"""Tables in main memory, or mapped from their files, off the compute device.

Rows are asked for as soon as their numbers are known, before the model begins, and waited for at the layer that needs them. A
thread of its own gathers them while the model computes, and sends them to the device. On a CPU few rows are gathered by the
caller when it gets there, which takes less time than handing them to a thread and back.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from runtime.placement.row_source import RowSource, bytes_of
from runtime.placement.transfer import Transfer
from runtime.vectors import LayerRows, Vectors

FEW_ROWS = 2048  # of a layer: gathering so many from memory takes about as long as the hand-over between two threads


class HostPlacement:
    def __init__(self, tables: Mapping[int, RowSource], device: torch.device) -> None:
        self._tables, self._device, self._transfer = tables, device, Transfer(device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rows")

    @property
    def table_bytes(self) -> int:
        return bytes_of(self._tables)

    def fetch(self, rows: LayerRows) -> Vectors:
        if are_few(rows, self._device):
            return lambda layer: self._sent(layer, rows)()
        sent = {layer: self._thread.submit(self._sent, layer, rows) for layer in rows}
        return lambda layer: sent[layer].result()()

    def _sent(self, layer: int, rows: LayerRows) -> Callable[[], Tensor]:
        """The rows of a layer side by side, (B, T, E)."""
        numbers = rows[layer]
        return self._transfer.send(self._tables[layer].gather(numbers).reshape(*numbers.shape[:2], -1))


def are_few(rows: LayerRows, device: torch.device) -> bool:
    """Whether the caller is to read them itself, at the layer that needs them."""
    return device.type == "cpu" and next(iter(rows.values())).size <= FEW_ROWS
