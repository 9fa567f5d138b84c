"""Reading and writing the records of a batch's rows in a file, compiled: a call of the system each, without Python between."""

import numpy as np
from numba import njit, types

_CALL = types.int64(types.int32, types.int64, types.int64, types.int64)
_pread, _pwrite = (types.ExternalFunction(name, _CALL) for name in ("pread", "pwrite"))


@njit(cache=True, nogil=True)
def transfer(descriptor, rows, records, writes):  # type: ignore[no-untyped-def]
    """Fills `records` (N, width) float32 with those of `rows` (N,), or where it `writes`, writes them.

    Gives how many it did, fewer than N where the system fails it.
    """
    size = records.shape[1] * 4
    for i in range(len(rows)):
        here, there = records[i].ctypes.data, rows[i] * size
        done = _pwrite(np.int32(descriptor), here, size, there) if writes else _pread(np.int32(descriptor), here, size, there)
        if done != size:
            return i
    return len(rows)
