"""Products of which a row's bits do not depend on the rows beside it, for decoding on a CPU.

Libraries choose the order of a sum by the number of rows, and are slow where there are few: MKL takes twice as long for four
rows as for one. Here every number is one sum from the first product to the last, each added by one rounding, whatever is
computed beside it (`product_kernel.py`). So one row costs what reading the weights costs, and many cost as much as with MKL
(docs/log.md). The weights are copied, PANEL outputs side by side.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hashing.base.cores import CORES
from runtime.model.helper import offered
from runtime.model.helper_kernel import multiply
from runtime.model.product_kernel import PANEL, TOGETHER, WIDTH, product
from runtime.model.step_kernel import is_decoded

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
        self._panels_at = 0  # their address, for which numpy takes a microsecond
        self._address, self._version = 0, -1  # of the matrix that they are a copy of, and how often it had been changed

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """(…, outputs) The product of x (…, inputs) and the transpose of weight (outputs, inputs)."""
        if torch.is_grad_enabled() or not getattr(_this, "row_by_row", False):
            return functional.linear(x, weight)
        return self._row_by_row(x, weight) if weight.dtype == torch.float32 and is_decoded(x) else functional.linear(x, weight)

    def _row_by_row(self, x: Tensor, weight: Tensor) -> Tensor:
        if self._version != weight._version or self._address != weight.data_ptr():
            self._panels, self._address, self._version = _panels(weight), weight.data_ptr(), weight._version
            self._panels_at = self._panels.ctypes.data
        outputs, inputs = weight.shape
        *before, _ = x.shape
        out, rows = x.new_empty(*before, outputs), x.numel() // inputs
        task, parts = (x.data_ptr(), self._panels_at, out.data_ptr(), (rows, inputs, outputs)), len(self._panels) // TOGETHER
        if rows * inputs * outputs < WORTH_A_THREAD or torch.get_num_threads() == 1:
            multiply(offered(), *task, parts)
            return out
        ends = [parts * part // CORES for part in range(CORES + 1)]
        for begun in [_threads().submit(partial(product, *task, first, last)) for first, last in pairwise(ends)]:
            begun.result()
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
