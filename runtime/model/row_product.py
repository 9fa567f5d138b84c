"""Products of which a row's bits do not depend on the rows beside it, for decoding on a CPU.

Libraries choose the order of a sum by the number of rows, and are slow where there are few: MKL takes twice as long for four
rows as for one. Here every number is one sum from the first product to the last, each added by one rounding, whatever is
computed beside it; vector instructions work on neighbouring outputs. So one row costs what reading the weights costs, and many
cost as much as with MKL (docs/log.md). The weights are copied, PANEL outputs side by side.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch
from llvmlite.binding import get_host_cpu_features
from numba import carray, njit
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hashing.base.cores import CORES
from runtime.model.step_kernel import floats, is_decoded
from runtime.model.tile_kernel import tile

ROWS = 4  # that are computed together
# Outputs whose weights stand together: as many sums of ROWS rows as registers hold beside what is multiplied.
PANEL = 64 if get_host_cpu_features().get("avx512f") else 16
WIDTH = 64  # outputs of a row alone that are computed together, so that no sum waits for the one before
TOGETHER = WIDTH // PANEL  # panels
WORTH_A_THREAD = 1 << 22  # multiplications: below, one core is done before another is awake

_this = threading.local()


@contextmanager
def row_by_row() -> Iterator[None]:
    """Within the block, products in this thread are those of this module where they can be."""
    before = getattr(_this, "row_by_row", False)
    _this.row_by_row = True
    try:
        yield
    finally:
        _this.row_by_row = before


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, thread_name_prefix="product")


class RowProduct:
    """The product with one matrix, of which it keeps a copy for as long as the matrix does not change."""

    def __init__(self) -> None:
        self._panels = np.empty((0, 0, PANEL), np.float32)
        self._address, self._version = 0, -1  # of the matrix that they are a copy of, and how often it had been changed

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """(…, outputs) The product of x (…, inputs) and the transpose of weight (outputs, inputs)."""
        if torch.is_grad_enabled() or not getattr(_this, "row_by_row", False):
            return functional.linear(x, weight)
        return self._row_by_row(x, weight) if weight.dtype == torch.float32 and is_decoded(x) else functional.linear(x, weight)

    def _row_by_row(self, x: Tensor, weight: Tensor) -> Tensor:
        if self._version != weight._version or self._address != weight.data_ptr():
            self._panels, self._address, self._version = _panels(weight), weight.data_ptr(), weight._version
        outputs, inputs = weight.shape
        *before, _ = x.shape
        out, rows = x.new_empty(*before, outputs), x.numel() // inputs
        task = x.data_ptr(), self._panels, out.data_ptr(), (rows, inputs, outputs)
        if rows * inputs * outputs < WORTH_A_THREAD or torch.get_num_threads() == 1:
            product(*task, 0, len(self._panels) // TOGETHER)
            return out
        ends = [len(self._panels) // TOGETHER * part // CORES for part in range(CORES + 1)]
        parts = [_threads().submit(partial(product, *task, first, last)) for first, last in pairwise(ends)]
        for part in parts:
            part.result()
        return out


class Linear(nn.Linear):
    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias)
        self._product = RowProduct()

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x, self.weight) if self.bias is None else self._product(x, self.weight) + self.bias


def _panels(weight: Tensor) -> NDArray[np.float32]:
    """(panels, inputs, PANEL) The columns of each panel's outputs side by side; zeros after the last output, up to WIDTH."""
    outputs, inputs = weight.shape
    filled = functional.pad(weight.detach(), (0, 0, 0, -outputs % WIDTH))
    return filled.view(-1, PANEL, inputs).transpose(1, 2).contiguous().numpy()


_one_row, _some_rows = tile(1, PANEL, TOGETHER), tile(ROWS, PANEL)


@njit(cache=True, nogil=True, error_model="numpy")
def product(given, panels, found, shape, first, last):  # type: ignore[no-untyped-def]
    """Fills outputs `first`·WIDTH to `last`·WIDTH of the outputs (rows, outputs) at `found` from the inputs (rows, inputs) at
    `given`.

    `shape` is rows, inputs, outputs. Rows are taken by a panel together, while its weights are at hand, and share the asking
    for those of the next; rows that are left over are taken one by one.
    """
    rows, inputs, outputs = shape
    out = carray(floats(found), (rows, outputs))
    spare = np.empty((ROWS, WIDTH), np.float32)  # where a tile reaches beyond the last output
    groups, slowness = rows // ROWS, 0
    while 2 << slowness <= groups:
        slowness += 1
    for part in range(first, last):
        for panel in range(part * TOGETHER, (part + 1) * TOGETHER):
            weights, begin = panels[panel].ctypes.data, panel * PANEL
            for group in range(groups):
                row = group * ROWS
                ahead = weights + 4 * PANEL * (inputs + group * (inputs >> slowness))
                if begin + PANEL <= outputs:
                    place = found + 4 * (row * outputs + begin)
                    _some_rows(given + 4 * row * inputs, weights, inputs, place, outputs, ahead, slowness)
                else:
                    _some_rows(given + 4 * row * inputs, weights, inputs, spare.ctypes.data, WIDTH, ahead, slowness)
                    for r in range(ROWS):
                        for i in range(max(0, outputs - begin)):
                            out[row + r, begin + i] = spare[r, i]
        weights, begin = panels[part * TOGETHER].ctypes.data, part * WIDTH
        for row in range(groups * ROWS, rows):
            if begin + WIDTH <= outputs:
                _one_row(given + 4 * row * inputs, weights, inputs, found + 4 * (row * outputs + begin), outputs, 0, 0)
            else:
                _one_row(given + 4 * row * inputs, weights, inputs, spare.ctypes.data, WIDTH, 0, 0)
                for i in range(outputs - begin):
                    out[row, begin + i] = spare[0, i]
