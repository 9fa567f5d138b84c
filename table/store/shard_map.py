"""Many shard files as one array.

Address space for the whole table is reserved once and each shard file is mapped to its place in it, so a row's number times its
size is its address and no reader needs to know about shards. Absent shards stay what the reservation is: zeros that cost
nothing. The price is that a shard's size must be a whole number of pages, and that Python's own `mmap`, which cannot choose an
address, is replaced by two calls to the C library.
"""

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAP_FIXED = 0x10
MAP_FAILED = ctypes.c_void_p(-1).value
PAGE_BYTES = mmap.PAGESIZE
HUGE_PAGE_BYTES = 2 << 20  # the kernel maps large folios of a file whole where address and offset agree in this: a tenth faster

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


def _map(address: int | None, size: int, flags: int, descriptor: int) -> int:
    result = libc.mmap(address, size, mmap.PROT_READ, flags, descriptor, 0)
    if result == MAP_FAILED:
        raise _error(f"map {size} bytes")
    return int(result)


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"cannot {what}: {os.strerror(code)}")


def check(result: int, what: str) -> None:
    """Raises OSError when a call of the C library failed."""
    if result != 0:
        raise _error(what)


def map_shards(shards: Sequence[Path | None], shard_bytes: int) -> NDArray[np.uint8]:
    """(len(shards)·shard_bytes,) The files end to end, read-only; None is a shard of zeros.

    The caller has checked that every file is `shard_bytes` long. The mapping lives as long as the array or a view of it.
    """
    assert shard_bytes % PAGE_BYTES == 0, "a shard is a whole number of pages"
    size = len(shards) * shard_bytes
    reserved = size + HUGE_PAGE_BYTES
    start = _map(None, reserved, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0), -1)
    base = -(-start // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    for position, shard in enumerate(shards):
        if shard is not None:
            descriptor = os.open(shard, os.O_RDONLY)
            try:
                _map(base + position * shard_bytes, shard_bytes, mmap.MAP_SHARED | MAP_FIXED, descriptor)
            finally:
                os.close(descriptor)
    memory = (ctypes.c_ubyte * size).from_address(base)
    weakref.finalize(memory, libc.munmap, start, reserved)
    array: NDArray[np.uint8] = np.ctypeslib.as_array(memory)
    array.flags.writeable = False
    return array
