"""RowCache: rows of a table on a drive, with as many of them in memory as it is given.

What it takes in memory is bounded for good, whatever is read. The pages of the files that the system keeps in memory are not
part of it: they are the system's, which takes them back for anyone who needs memory.
"""

import threading
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from table.encodings.encoding import Records
from table.store.row_cache_kernel import CHANGED, FAILED, HIT, ON_LINUX, OUTSIDE, READ, REPEATED, WAITED, WAYS, read
from table.store.table_files import TableFiles

PLACE_BYTES = 8 + 8  # of a row that is held: its number and its last call
ALL = np.empty(0, np.int64)


@dataclass(slots=True)
class Reading:
    """Rows that were asked for."""

    rows: NDArray[np.int64]  # (N,)
    records: Records  # (N, row_bytes); filled where a place is not pending
    pending: NDArray[np.int64]  # places whose rows the drive was asked for

    @property
    def is_pending(self) -> bool:
        return self.pending.size > 0


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """Of rows, since the cache was made."""

    asked: int
    unique: int  # of those asked for together
    hit: int  # of the unique ones, in the cache
    read: int  # from a file whose page was in memory
    waited: int  # from the drive
    bytes_read: int
    wait_sec: float  # spent on rows that had to be waited for


class RowCache:
    def __init__(self, files: TableFiles, row_bytes: int, memory: int) -> None:
        """`memory` in bytes; at least one set of rows is held.

        Raises EngramError for a file that is gone, or not the one that it was when the table was opened.
        """
        self._files, self._row_bytes, self._lock = files.open(), row_bytes, threading.Lock()
        sets = max(1, min(memory // (WAYS * (row_bytes + PLACE_BYTES)), -(-files.rows // WAYS)))
        self._slots = np.full((sets, 2, WAYS), -1, np.int64)
        self._slots[:, 1] = 0
        self._records = np.empty((sets * WAYS, row_bytes), np.uint8)
        self._places = self._files.table()
        self._counts, self._wait_sec, self._call = np.zeros(4, np.int64), 0.0, 0

    @property
    def capacity(self) -> int:
        """In rows."""
        return len(self._records)

    def counts(self) -> CacheCounts:
        found = self._counts.tolist()
        missed = found[READ] + found[WAITED]
        unique = sum(found) - found[REPEATED]
        return CacheCounts(sum(found), unique, found[HIT], found[READ], found[WAITED], missed * self._row_bytes, self._wait_sec)

    def begin(self, rows: NDArray[np.integer]) -> Reading:
        """Reads what is in memory of rows of any shape, and asks the drive for the others without waiting for them.

        Raises IndexError for a row that the table does not have, and EngramError for a file that can no longer be trusted.
        """
        wanted = np.asarray(rows, np.int64).ravel()
        records, pending = np.empty((wanted.size, self._row_bytes), np.uint8), np.empty(wanted.size, np.int64)
        count = self._read(wanted, ALL, False, records, pending)
        return Reading(wanted, records, pending[:count] if count else ALL)

    def finish(self, reading: Reading) -> Records:
        """(N, row_bytes) The records of all rows. Raises EngramError as `begin` does."""
        if reading.is_pending:
            began = perf_counter()
            self._read(reading.rows, reading.pending.copy(), True, reading.records, reading.pending)
            self._wait_sec += perf_counter() - began
        return reading.records

    def _read(
        self, rows: NDArray[np.int64], places: NDArray[np.int64], waits: bool, records: Records, pending: NDArray[np.int64]
    ) -> int:
        with self._lock:
            self._call += 1
            cache = self._places, self._slots, self._records
            count: int = read(rows, places, waits, self._call, *cache, records, pending, self._counts)
            if count < 0 or not ON_LINUX:
                self._check(count, rows, pending)
        return count

    def _check(self, count: int, rows: NDArray[np.int64], pending: NDArray[np.int64]) -> None:
        """Raises an error for what the kernel has found."""
        if count == OUTSIDE:
            raise IndexError(f"row {rows[pending[0]]} is outside the table's {self._files.files.rows}")
        try:
            self._files.check()
            if count == FAILED:
                self._files.fail(int(pending[0]), "ends before its rows do, or cannot be read")
            assert count != CHANGED, "what has changed was found"
        except EngramError:
            self._slots[:, 0] = -1  # of what was read from that file, nobody knows what is right
            raise
