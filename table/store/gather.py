"""Table: one layer's records, and the vectors of row numbers straight from them.

Warm rows are decoded by a few threads, each asking for the records ahead of the one it decodes; the GIL is released, so that a
background thread can work. Rows that may still be on the drive are asked for first (`read_ahead`), each page once and all at
once: a page fault at a time leaves the drive idle between requests. One thread that advises MADV_WILLNEED keeps it as busy as
dozens that read (`docs/log.md`).
"""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from table.encodings.encoding import Encoding, Records
from table.store.shard_map import PAGE_BYTES, check, libc

MADV_WILLNEED = 3
PAGES_PER_QUERY = 1 << 20
LEAST_TASK_BYTES = 1 << 20  # of vectors; below it one thread is faster than handing out work
TASKS_PER_THREAD = 4  # so that a thread that is held up does not hold up all


_madvise = types.ExternalFunction("madvise", types.int32(types.int64, types.int64, types.int32))


@njit(cache=True, nogil=True)
def _will_need(first_pages, last_pages):  # type: ignore[no-untyped-def]
    """Asks for runs of pages, counted from address 0; the call returns once the drive was told."""
    for i in range(first_pages.shape[0]):
        _madvise(first_pages[i] * PAGE_BYTES, (last_pages[i] - first_pages[i] + 1) * PAGE_BYTES, MADV_WILLNEED)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gather")


@dataclass(frozen=True, slots=True)
class Table:
    """A layer's table: records of any encoding, read as float32 vectors."""

    records: Records  # (rows, row_bytes), usually mapped
    encoding: Encoding
    head_dim: int
    scale: float = 1.0

    @property
    def rows(self) -> int:
        return len(self.records)

    def gather(self, rows: NDArray[np.integer], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(…, head_dim) The vectors of rows of any shape, into `out` if given (C-contiguous float32 of that shape).

        Raises IndexError for a row that the table does not have.
        """
        shape = (*rows.shape, self.head_dim)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}, expected contiguous float32 {shape}")
        flat, vectors = np.ascontiguousarray(rows).reshape(-1), out.reshape(-1, self.head_dim)
        words, kernel, scale = self.encoding.words(self.records), self.encoding.gather, np.float32(self.scale)
        tasks = TASKS_PER_THREAD * (os.cpu_count() or 1)
        per_task = max(1, LEAST_TASK_BYTES // (4 * self.head_dim), -(-len(flat) // tasks))

        def work(first: int) -> None:
            last = first + per_task
            bad = kernel(words, self.records.shape[1], flat[first:last], scale, vectors[first:last])
            if bad >= 0:
                raise IndexError(f"row {flat[first + bad]} is outside the table's {self.rows}")

        run = map if len(flat) <= per_task else _threads().map
        deque(run(work, range(0, len(flat), per_task)), maxlen=0)
        return out

    def read_ahead(self, rows: NDArray[np.integer]) -> int:
        """Asks the drive for all pages of rows of a mapped table at once, without waiting for them; gives how many pages.

        Worth its microsecond a page only for rows that may not be in memory. Raises IndexError as `gather` does.
        """
        flat = np.unique(rows)
        if not len(flat):
            return 0
        if flat[0] < 0 or flat[-1] >= self.rows:
            raise IndexError(f"rows {flat[0]} to {flat[-1]} are not all inside the table's {self.rows}")
        begins = self.records.ctypes.data + flat.astype(np.int64) * self.records.shape[1]
        first, last = begins // PAGE_BYTES, (begins + self.records.shape[1] - 1) // PAGE_BYTES
        apart = np.flatnonzero(first[1:] > last[:-1] + 1) + 1  # neighbouring pages are one run
        starts, ends = np.append(0, apart), np.append(apart, len(flat)) - 1
        _will_need(first[starts], last[ends])
        return int((last[ends] - first[starts] + 1).sum())

    def advise(self, advice: int) -> None:
        """Tells the kernel how a mapped table will be read (mmap.MADV_…)."""
        begin = self.records.ctypes.data // PAGE_BYTES * PAGE_BYTES
        size = self.records.ctypes.data + self.records.nbytes - begin
        check(libc.madvise(begin, size, advice), "advise on the mapping")

    def resident_bytes(self) -> int:
        """How much of the table is in memory, in whole pages (mincore)."""
        begin = self.records.ctypes.data // PAGE_BYTES * PAGE_BYTES
        pages = -(-(self.records.ctypes.data + self.records.nbytes - begin) // PAGE_BYTES)
        resident = 0
        state = np.empty(min(pages, PAGES_PER_QUERY), np.uint8)
        for done in range(0, pages, PAGES_PER_QUERY):
            count = min(PAGES_PER_QUERY, pages - done)
            check(libc.mincore(begin + done * PAGE_BYTES, count * PAGE_BYTES, state.ctypes.data), "ask what is in memory")
            resident += int((state[:count] & 1).sum())
        return resident * PAGE_BYTES
