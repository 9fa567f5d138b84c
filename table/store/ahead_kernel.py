"""Asking the drive for the pages of many rows at once, compiled."""

import numpy as np
from numba import njit, types

from table.store.shard_map import PAGE_BYTES

MADV_WILLNEED = 3

_madvise = types.ExternalFunction("madvise", types.int32(types.int64, types.int64, types.int32))


@njit(cache=True, nogil=True)
def will_need(base, count, row_bytes, rows, is_sorted):  # type: ignore[no-untyped-def]
    """Asks for the pages of `rows` of a table of `count`, each run of neighbouring pages at once; gives how many pages, or -1
    where the table lacks a row.

    A call returns once the drive was told.
    """
    ordered = rows if is_sorted else np.sort(rows)
    if len(ordered) > 0 and (ordered[0] < 0 or ordered[-1] >= count):
        return -1
    pages, first, last = 0, -1, -2
    for row in ordered:
        begin = (base + np.int64(row) * row_bytes) // PAGE_BYTES
        if begin > last + 1:
            if first >= 0:
                _madvise(first * PAGE_BYTES, (last - first + 1) * PAGE_BYTES, MADV_WILLNEED)
                pages += last - first + 1
            first = begin
        last = (base + np.int64(row) * row_bytes + row_bytes - 1) // PAGE_BYTES
    if first >= 0:
        _madvise(first * PAGE_BYTES, (last - first + 1) * PAGE_BYTES, MADV_WILLNEED)
        pages += last - first + 1
    return pages
