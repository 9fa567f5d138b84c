"""Reuse distances: how many different rows were read since a row was last read (Mattson's stack distance).

A Fenwick tree over time marks each row's latest access; the marks after the previous access of a row are the rows read since.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def reuse_distances(accesses, distinct):  # type: ignore[no-untyped-def]
    """(histogram (distinct,) of reuse distances, number of first accesses) of rows numbered from 0 to distinct - 1."""
    length = accesses.shape[0]
    tree = np.zeros(length + 1, np.int32)
    latest = np.full(distinct, -1, np.int64)
    histogram = np.zeros(distinct, np.int64)
    seen = 0
    for now in range(length):
        row = accesses[now]
        before = latest[row]
        if before < 0:
            seen += 1
        else:
            older = 0
            place = before + 1
            while place > 0:
                older += tree[place]
                place &= place - 1
            histogram[seen - older] += 1
            place = before + 1
            while place <= length:
                tree[place] -= 1
                place += place & -place
        latest[row] = now
        place = now + 1
        while place <= length:
            tree[place] += 1
            place += place & -place
    return histogram, seen
