"""Reading and writing the records of a batch's rows in a file, compiled: a call of the system each, without Python between."""

import numpy as np
from numba import njit, types

_pread = types.ExternalFunction("pread", types.int64(types.int32, types.int64, types.int64, types.int64))
_pwrite = types.ExternalFunction("pwrite", types.int64(types.int32, types.int64, types.int64, types.int64))


@njit(cache=True, nogil=True)
def read_records(descriptor, rows, records):  # type: ignore[no-untyped-def]
    """Fills `records` (N, width) float32 with those of `rows` (N,); gives how many it got, fewer where a read fails."""
    size = records.shape[1] * 4
    for i in range(len(rows)):
        if _pread(np.int32(descriptor), records[i].ctypes.data, size, rows[i] * size) != size:
            return i
    return len(rows)


@njit(cache=True, nogil=True)
def write_records(descriptor, rows, records):  # type: ignore[no-untyped-def]
    """Writes `records` (N, width) float32 of `rows` (N,); gives how many it wrote, fewer where a write fails."""
    size = records.shape[1] * 4
    for i in range(len(rows)):
        if _pwrite(np.int32(descriptor), records[i].ctypes.data, size, rows[i] * size) != size:
            return i
    return len(rows)
