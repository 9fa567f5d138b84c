"""The rules of `row_rules.py` over the rows of a batch, compiled for a CPU: each row's numbers are read and written once.

As torch operations Adam makes a dozen passes over copies of the rows, and takes four times as long (docs/log.md).

In every function `rows` (U,) are the rows of the tables to set, `vectors` (U, D) are those rows as they were read and
`gradients` (U, D) those with respect to them; all numbers are float32. `error_model="numpy"` gives divisions without a branch
for zero, and "reassoc" lets a sum be added up in any order, so that both become vector instructions.
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


@njit(inline="always")
def _correction(corrections, updates):  # type: ignore[no-untyped-def]
    return corrections[min(np.int64(updates), len(corrections) - 1)]


@njit(cache=True, nogil=True, error_model="numpy")
def adam_rows(weight, moment, square, updates, rows, vectors, gradients, rate, betas, corrections, eps):  # type: ignore[no-untyped-def]
    """Sets `rows` of the tables `weight`, `moment` and `square` (R, D) and of `updates` (R,) after one step of Adam.

    Where β1 is 0, `moment` is None: it would be the gradient. `corrections` holds for each β what its mean is multiplied with
    after n updates; the last number is that for all that follow. A power of β for each row took as long as all the rest.
    """
    beta1, beta2 = np.float32(betas[0]), np.float32(betas[1])
    rest1, rest2 = np.float32(1 - betas[0]), np.float32(1 - betas[1])
    for i in range(rows.shape[0]):
        if i + AHEAD < rows.shape[0]:
            _ask(weight, rows[i + AHEAD])
            if moment is not None:
                _ask(moment, rows[i + AHEAD])
            _ask(square, rows[i + AHEAD])
        row = rows[i]
        updates[row] += np.float32(1)
        step = np.float32(rate * _correction(corrections[0], updates[row]))
        root = np.float32(math.sqrt(_correction(corrections[1], updates[row])))
        for j in range(vectors.shape[1]):
            gradient = gradients[i, j]
            mean = gradient
            if moment is not None:
                mean = moment[row, j] * beta1 + gradient * rest1
                moment[row, j] = mean
            power = square[row, j] * beta2 + gradient * gradient * rest2
            square[row, j] = power
            weight[row, j] = vectors[i, j] - step * mean / (np.sqrt(power) * root + np.float32(eps))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc"})
def rowwise_adam_rows(weight, moment, square, updates, rows, vectors, gradients, rate, betas, corrections, eps):  # type: ignore[no-untyped-def]
    """The same where `square` (R, 1) is one number a row: the running mean of its gradients' mean squares."""
    beta1, rest1 = np.float32(betas[0]), np.float32(1 - betas[0])
    for i in range(rows.shape[0]):
        if i + AHEAD < rows.shape[0]:
            _ask(weight, rows[i + AHEAD])
            if moment is not None:
                _ask(moment, rows[i + AHEAD])
        row, total = rows[i], np.float32(0)
        for j in range(vectors.shape[1]):
            total += gradients[i, j] * gradients[i, j]
        updates[row] += np.float32(1)
        square[row, 0] = square[row, 0] * betas[1] + total / vectors.shape[1] * (1 - betas[1])
        root = math.sqrt(square[row, 0] * _correction(corrections[1], updates[row])) + eps
        step = np.float32(rate * _correction(corrections[0], updates[row]) / root)
        for j in range(vectors.shape[1]):
            mean = gradients[i, j]
            if moment is not None:
                mean = moment[row, j] * beta1 + mean * rest1
                moment[row, j] = mean
            weight[row, j] = vectors[i, j] - step * mean


@njit(cache=True, nogil=True)
def momentum_rows(moment, last, rows, gradients, momentum, now):  # type: ignore[no-untyped-def]
    """Takes gradients into `rows` of `moment` (R, D), decayed since the steps `last` (R,) int32, which becomes the step `now`.

    `gradients` are overwritten by the mean of themselves and the moments, a step ahead (Nesterov).
    """
    beta, rest = np.float32(momentum), np.float32(1 - momentum)
    for i in range(rows.shape[0]):
        if i + AHEAD < rows.shape[0]:
            _ask(moment, rows[i + AHEAD])
        row = rows[i]
        kept = np.float32(momentum ** (now - last[row]))
        last[row] = now
        for j in range(gradients.shape[1]):
            part = gradients[i, j] * rest
            mean = moment[row, j] * kept + part
            moment[row, j] = mean
            gradients[i, j] = mean * beta + part


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc"})
def row_norms(directions):  # type: ignore[no-untyped-def]
    """(U,) The norms of directions (U, D)."""
    norms = np.empty(directions.shape[0], dtype=np.float32)
    for i in range(directions.shape[0]):
        square = np.float32(0)
        for j in range(directions.shape[1]):
            square += directions[i, j] * directions[i, j]
        norms[i] = math.sqrt(square)
    return norms


@njit(forceinline=True, error_model="numpy", fastmath={"reassoc"})
def _scaled_square(matrix, row, columns):  # type: ignore[no-untyped-def]
    """The squared norm of a row whose columns are scaled by the roots of `columns`."""
    total = np.float32(0)
    for j in range(columns.shape[0]):
        total += matrix[row, j] * matrix[row, j] * columns[j]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def largest_shares(directions, norms, threshold):  # type: ignore[no-untyped-def]
    """(D,) float64 The largest share that each column has in the square of a row's norm, of rows longer than `threshold`."""
    ones, largest = np.ones(directions.shape[1], np.float32), np.zeros(directions.shape[1])
    for i in range(directions.shape[0]):
        if norms[i] > threshold:
            scale = np.float32(1) / _scaled_square(directions, i, ones)
            for j in range(directions.shape[1]):
                largest[j] = max(largest[j], directions[i, j] * directions[i, j] * scale)
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def column_shares(directions, norms, threshold, columns, factors):  # type: ignore[no-untyped-def]
    """(D,) float64 The sums of the columns' shares in the squares of rows longer than `threshold`, each times its `factors`.

    Columns are scaled by the roots of `columns`. Every share is rounded to a whole number, so that the sums are the same in
    whatever order, and by however many processes, they are added up.
    """
    totals = np.zeros(columns.shape[0])
    for i in range(directions.shape[0]):
        if norms[i] > threshold:
            scale = np.float32(1) / _scaled_square(directions, i, columns)
            for j in range(columns.shape[0]):
                totals[j] += np.rint(np.float64(directions[i, j] * directions[i, j] * columns[j] * scale) * factors[j])
    return totals


@njit(cache=True, nogil=True, error_model="numpy")
def move_balanced(weight, updates, rows, vectors, directions, norms, threshold, columns, distance):  # type: ignore[no-untyped-def]
    """Moves `rows` of `weight` (R, D), each by `distance`, against `directions` (U, D) scaled by the roots of `columns` (D,).

    A row whose direction is no longer than `threshold` stays, but is counted in `updates` (R,) too.
    """
    roots = np.sqrt(columns)
    for i in range(rows.shape[0]):
        if i + AHEAD < rows.shape[0]:
            _ask(weight, rows[i + AHEAD])
        updates[rows[i]] += np.float32(1)
        step = np.float32(0)
        if norms[i] > threshold:
            step = np.float32(distance / math.sqrt(_scaled_square(directions, i, columns)))
        for j in range(vectors.shape[1]):
            weight[rows[i], j] = vectors[i, j] - step * directions[i, j] * roots[j]
