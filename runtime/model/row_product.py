"""Products of which a row's bits do not depend on the rows beside it, for decoding on a CPU.

Libraries choose the order of a sum by the number of rows, and are slow where there are few: MKL takes twice as long for four
rows as for one. Here every number is one sum from the first product to the last, each added by one rounding, whatever is
computed beside it; vector instructions work on neighbouring outputs. So one row costs what reading the weights costs, and many
cost little more than with MKL (docs/log.md). The weights are copied, PANEL outputs side by side.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch
from numba import carray, njit
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hashing.base.cores import CORES
from runtime.model.step_kernel import floats, fma, is_decoded

PANEL = 64  # outputs
ROWS = 4  # that share a panel's numbers in registers
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
            product(*task, 0, len(self._panels))
            return out
        ends = [len(self._panels) * part // CORES for part in range(CORES + 1)]
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
    """(panels, inputs, PANEL) The columns of each panel's outputs side by side; zeros after the last output."""
    outputs, inputs = weight.shape
    filled = functional.pad(weight.detach(), (0, 0, 0, -outputs % PANEL))
    return filled.view(-1, PANEL, inputs).transpose(1, 2).contiguous().numpy()


@njit(cache=True, nogil=True, error_model="numpy")
def product(given, panels, found, shape, first, last):  # type: ignore[no-untyped-def]
    """Fills panels `first` to `last` of the outputs (rows, outputs) at `found` from the inputs (rows, inputs) at `given`.

    `shape` is rows, inputs, outputs. The two loops over rows do the same for a row, so that it does not matter which takes it.
    """
    rows, inputs, outputs = shape
    x, out = carray(floats(given), (rows, inputs)), carray(floats(found), (rows, outputs))
    sums = np.empty((ROWS, PANEL), np.float32)
    whole = inputs - inputs % 4
    for panel in range(first, last):
        weights, begin = panels[panel], panel * PANEL
        width = min(PANEL, outputs - begin)
        row = 0
        while row < rows:
            count = ROWS if row + ROWS <= rows else 1
            for r in range(count):
                for i in range(PANEL):
                    sums[r, i] = np.float32(0)
            for k in range(0, whole, 4):
                w0, w1, w2, w3 = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
                a0, a1, a2, a3 = x[row, k], x[row, k + 1], x[row, k + 2], x[row, k + 3]
                if count == 1:
                    for i in range(PANEL):
                        u0, u1, u2, u3 = w0[i], w1[i], w2[i], w3[i]
                        sums[0, i] = fma(a3, u3, fma(a2, u2, fma(a1, u1, fma(a0, u0, sums[0, i]))))
                else:
                    b0, b1, b2, b3 = x[row + 1, k], x[row + 1, k + 1], x[row + 1, k + 2], x[row + 1, k + 3]
                    c0, c1, c2, c3 = x[row + 2, k], x[row + 2, k + 1], x[row + 2, k + 2], x[row + 2, k + 3]
                    d0, d1, d2, d3 = x[row + 3, k], x[row + 3, k + 1], x[row + 3, k + 2], x[row + 3, k + 3]
                    for i in range(PANEL):
                        u0, u1, u2, u3 = w0[i], w1[i], w2[i], w3[i]
                        sums[0, i] = fma(a3, u3, fma(a2, u2, fma(a1, u1, fma(a0, u0, sums[0, i]))))
                        sums[1, i] = fma(b3, u3, fma(b2, u2, fma(b1, u1, fma(b0, u0, sums[1, i]))))
                        sums[2, i] = fma(c3, u3, fma(c2, u2, fma(c1, u1, fma(c0, u0, sums[2, i]))))
                        sums[3, i] = fma(d3, u3, fma(d2, u2, fma(d1, u1, fma(d0, u0, sums[3, i]))))
            for k in range(whole, inputs):
                for r in range(count):
                    for i in range(PANEL):
                        sums[r, i] = fma(x[row + r, k], weights[k, i], sums[r, i])
            for r in range(count):
                for i in range(width):
                    out[row + r, begin + i] = sums[r, i]
            row += count
