"""Vectors of row numbers, straight from a mapped table. The GIL is released, so that a background thread can read ahead."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def _copy_rows(table, rows, out):  # type: ignore[no-untyped-def]
    for i in range(rows.shape[0]):
        source = table[rows[i]]
        for j in range(out.shape[1]):
            out[i, j] = source[j]


def gather(table: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(…, head_dim) The table's vectors for rows of any shape, which the caller knows to be in range."""
    out = np.empty((rows.size, table.shape[1]), np.float32)
    _copy_rows(table, rows.reshape(-1), out)
    return out.reshape(*rows.shape, table.shape[1])
