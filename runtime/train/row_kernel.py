"""Adam over the rows of a batch, compiled for a CPU: one pass that reads and writes each number once.

As torch operations the same makes a dozen passes over copies of the rows, and takes four times as long (docs/log.md).
"""

import math

import numpy as np
from numba import njit

from hashing.base.prefetch import LINE_BYTES, prefetch

AHEAD = 4  # rows that memory is asked for ahead of the one being updated


@njit(inline="always")
def _ask(table, row):  # type: ignore[no-untyped-def]
    begin = table.ctypes.data + row * table.shape[1] * 4
    for line in range(0, table.shape[1] * 4, LINE_BYTES):
        prefetch(begin + line)


@njit(cache=True, nogil=True, error_model="numpy")  # whose divisions have no branch, so that they become vector instructions
def adam_rows(weight, moment, square, updates, rows, vectors, gradients, rate, betas, eps):  # type: ignore[no-untyped-def]
    """Sets `rows` (U,) of the tables `weight`, `moment` and `square` (R, D) and of `updates` (R,) after one step of Adam.

    `vectors` (U, D) are the rows as they were read, `gradients` (U, D) those with respect to them; all numbers are float32.
    """
    beta1, beta2 = np.float32(betas[0]), np.float32(betas[1])
    rest1, rest2 = np.float32(1 - betas[0]), np.float32(1 - betas[1])
    for i in range(rows.shape[0]):
        if i + AHEAD < rows.shape[0]:
            _ask(weight, rows[i + AHEAD])
            _ask(moment, rows[i + AHEAD])
            _ask(square, rows[i + AHEAD])
        row = rows[i]
        updates[row] += np.float32(1)
        step = np.float32(rate / (1 - betas[0] ** updates[row]))
        root = np.float32(1 / math.sqrt(1 - betas[1] ** updates[row]))
        for j in range(vectors.shape[1]):
            gradient = gradients[i, j]
            mean = moment[row, j] * beta1 + gradient * rest1
            power = square[row, j] * beta2 + gradient * gradient * rest2
            moment[row, j], square[row, j] = mean, power
            weight[row, j] = vectors[i, j] - step * mean / (np.sqrt(power) * root + np.float32(eps))
