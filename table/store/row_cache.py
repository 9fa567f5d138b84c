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
from table.store.row_cache_kernel import FAILED, HIT, OUTSIDE, READ, REPEATED, WAITED, WAYS, read
from table.store.table_files import TableFiles

MOST_CALLS = 1 << 31  # then numbers of calls begin again
PLACE_BYTES = 8 + 1 + 4  # of a row that is held: its number, uses and last call


@dataclass(slots=True)
class Reading:
    """Rows that were asked for."""

    rows: NDArray[np.int64]  # (N,)
    records: Records  # (N, row_bytes); filled where a place is not pending
    pending: NDArray[np.int64]  # places whose rows the drive was asked for


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
        self._held = np.full((sets, WAYS), -1, np.int64)
        self._uses, self._used = np.zeros((sets, WAYS), np.uint8), np.zeros((sets, WAYS), np.int32)
        self._records = np.empty((sets * WAYS, row_bytes), np.uint8)
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
        flat = rows.reshape(-1).astype(np.int64, copy=False)
        reading = Reading(flat, np.empty((len(flat), self._row_bytes), np.uint8), np.empty(len(flat), np.int64))
        count = self._read(reading, np.arange(len(flat)), waits=False)
        reading.pending = reading.pending[:count].copy()
        return reading

    def finish(self, reading: Reading) -> Records:
        """(N, row_bytes) The records of all rows. Raises EngramError as `begin` does."""
        if len(reading.pending):
            began = perf_counter()
            self._read(reading, reading.pending.copy(), waits=True)
            self._wait_sec += perf_counter() - began
        return reading.records

    def _read(self, reading: Reading, places: NDArray[np.int64], waits: bool) -> int:
        files = self._files
        touched = np.zeros(len(files.descriptors), np.bool_)
        with self._lock:
            self._call = (self._call + 1) % MOST_CALLS
            count = int(
                read(
                    reading.rows,
                    places,
                    files.files.rows,
                    waits,
                    (files.files.firsts, files.descriptors, files.offsets),
                    (self._held, self._uses, self._used, self._records),
                    np.int32(self._call),
                    reading.records,
                    reading.pending,
                    touched,
                    self._counts,
                )
            )
            if count == OUTSIDE:
                raise IndexError(f"row {reading.rows[reading.pending[0]]} is outside the table's {files.files.rows}")
            try:
                files.check(touched)
                if count == FAILED:
                    files.fail(int(reading.pending[0]), "ends before its rows do, or cannot be read")
            except EngramError:
                self._held.fill(-1)  # of what was read from that file, nobody knows what is right
                raise
        return count
