"""Table: one layer's records, and the vectors of row numbers straight from them.

A kernel decodes rows, asking for the records ahead of the one in hand; the GIL is released, so that a background thread can
work. Few rows are gathered by the caller alone: waking a thread takes longer. Many are cut into pieces that the caller and a
few threads take one by one, so that a thread that is held up, or not woken in time, holds up nobody.

Rows that may still be on the drive are asked for first (`read_ahead`), each page once and all at once: a page fault at a time
leaves the drive idle between requests. One thread that advises MADV_WILLNEED keeps it as busy as dozens that read
(`docs/log.md`).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hashing.base.cores import CORES
from hashing.base.errors import EngramError
from table.encodings.encoding import Encoding, Records
from table.store.shard_map import PAGE_BYTES, check, libc
from table.store.table_files import TableFiles

PAGES_PER_QUERY = 1 << 20
FLOAT32 = np.dtype(np.float32)
ALONE_BYTES = 1 << 20  # of vectors; up to here the caller is done before a thread is awake
PIECE_BYTES = 1 << 20  # of vectors; handing out smaller pieces costs more than it evens out
FEW_ROWS = 128  # that compiled code sorts itself sooner than numpy is called; many are sorted by numpy's vector instructions
PIECES_PER_THREAD = 8  # of large gathers


@cache
def helpers() -> ThreadPoolExecutor:
    """The threads that help a caller to gather many rows."""
    return ThreadPoolExecutor(max(1, CORES - 1), thread_name_prefix="gather")


@dataclass(frozen=True, slots=True)
class Table:
    """A layer's table: records of any encoding, read as float32 vectors."""

    records: Records  # (rows, row_bytes), contiguous, usually mapped
    encoding: Encoding
    head_dim: int
    scale: float = 1.0
    lies_in: TableFiles | None = None  # None: only in memory
    rows: int = field(init=False, repr=False, compare=False)
    _place: tuple[int, int, int] = field(
        init=False, repr=False, compare=False
    )  # address, rows, row_bytes, as kernels take them

    def __post_init__(self) -> None:
        assert self.records.flags.c_contiguous, "kernels find a record by its number times its size"
        rows, row_bytes = self.records.shape
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "_place", (self.records.ctypes.data, rows, row_bytes))

    def gather(self, rows: NDArray[np.integer], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(…, head_dim) The vectors of rows of any shape, into `out` if given (C-contiguous float32 of that shape).

        Raises IndexError for a row that the table does not have.
        """
        shape = (*rows.shape, self.head_dim)
        if out is None:
            out = np.empty(shape, FLOAT32)
        elif out.shape != shape or out.dtype != FLOAT32 or not out.flags.carray:
            raise ValueError(f"out is {out.dtype} {out.shape}, expected contiguous float32 {shape}")
        flat, vectors = rows.ravel(), out.reshape(-1, self.head_dim)
        if out.nbytes <= ALONE_BYTES or CORES == 1:
            bad = self.encoding.gather(*self._place, flat, self.scale, vectors)
        else:
            bad = self._gather_together(flat, vectors)
        if bad >= 0:
            raise IndexError(f"row {flat[bad]} is outside the table's {self.rows}")
        return out

    def _gather_together(self, rows: NDArray[np.integer], vectors: NDArray[np.float32]) -> int:
        """Gathers with the help of other threads; gives the position of the first row that the table does not have, or -1."""
        size = max(PIECE_BYTES // (4 * self.head_dim), -(-len(rows) // (PIECES_PER_THREAD * CORES)), 1)
        pieces = iter(range(0, len(rows), size))  # one for all: each piece is taken once
        tasks = [helpers().submit(self._gather_pieces, pieces, size, rows, vectors) for _ in range(CORES - 1)]
        found = [self._gather_pieces(pieces, size, rows, vectors)]
        found += [task.result() for task in tasks if not task.cancel()]
        return min((bad for bad in found if bad >= 0), default=-1)

    def _gather_pieces(self, pieces: Iterator[int], size: int, rows: NDArray[np.integer], vectors: NDArray[np.float32]) -> int:
        """Gathers pieces of `size` rows while there are any; stops at a row that the table does not have."""
        for first in pieces:
            last = first + size
            bad = self.encoding.gather(*self._place, rows[first:last], self.scale, vectors[first:last])
            if bad >= 0:
                return first + int(bad)
        return -1

    @property
    def row_bytes(self) -> int:
        """Of a record."""
        return self._place[2]

    @property
    def files(self) -> TableFiles:
        """Where the records lie. Raises EngramError where that is only in memory."""
        if self.lies_in is None:
            raise EngramError("the table is in memory, and in no file")
        return self.lies_in

    def decoded(self, records: Records) -> NDArray[np.float32]:
        """(N, head_dim) The vectors of records (N, row_bytes) of this table or another of its kind."""
        if self.encoding.name == "float32":
            return records.view(FLOAT32)
        return self.encoding.decoded(records, self.head_dim, self.scale)

    def stretch(self, first: int, last: int) -> Records:
        """The records of neighbouring rows, from `first` up to `last`, mapped where the table is."""
        return self.records[first:last]

    def in_memory(self) -> "Table":
        """The same rows in memory of their own."""
        return replace(self, records=self.records.copy(), lies_in=None)

    def read_ahead(self, rows: NDArray[np.integer]) -> int:
        """Asks the drive for all pages of rows of a mapped table at once, without waiting for them; gives how many pages.

        Worth its half microsecond a page only for rows that may not be in memory. Raises IndexError as `gather` does.
        """
        from table.store.ahead_kernel import will_need

        many = rows.size > FEW_ROWS
        pages = int(will_need(*self._place, np.sort(rows, axis=None) if many else rows.ravel(), many))
        if pages < 0:
            raise IndexError(f"rows {rows.min()} to {rows.max()} are not all inside the table's {self.rows}")
        return pages

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
