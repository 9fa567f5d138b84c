"""Faults of rows themselves: NaN and infinite codes, scales out of the ordinary, and how many rows are zeros.

One pass over records, block by block: a block's checksum is taken, if wanted, and its rows are looked at while it is in the
cache. The largest magnitude of a row's codes tells both whether one is NaN or infinite and whether all are zero. Scales are
counted by exponent, with the first row of each, and judged at the end against the median.
"""

from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numba import njit
from numpy.typing import NDArray

from table.encodings.encoding import Encoding, Records
from table.store.checksum import BLOCK_BYTES, Checksums
from table.store.checksum_kernel import block_checksum

FAR = 32  # a scale this many powers of two from the median is out of the ordinary
NOT_A_NUMBER, NEGATIVE = 255, 256  # bins after those of the exponents
BINS = 257
LANES = 8  # histograms side by side: adding to a bin twice in a row would wait for the first addition
NOT_FINITE, FIRST_NOT_FINITE, ZERO = range(3)  # places in what a scan finds


@njit(cache=True, nogil=True)
def _look_at_codes(words, begin, end, width, mask, limit, first_row, found):  # type: ignore[no-untyped-def]
    """Adds rows of a block to `found`. In the code's own type throughout, for the vectors."""
    word = words.dtype.type
    for row in range(begin, end):
        largest = word(0)
        for j in range(width):
            largest = max(largest, word(words[row, j] & mask))
        found[ZERO] += largest == 0
        if largest >= limit:
            found[NOT_FINITE] += 1
            if found[FIRST_NOT_FINITE] < 0:
                found[FIRST_NOT_FINITE] = first_row + row


@njit(inline="always")
def _exponent(records, i, j, scale_bytes):  # type: ignore[no-untyped-def]
    """The bin of the scale at byte `j` of a record."""
    if scale_bytes == 1:
        return np.int64(records[i, j])
    if records[i, j + 1] & 128:
        return np.int64(NEGATIVE)
    return np.int64((records[i, j + 1] & 127) << 1 | records[i, j] >> 7)


@njit(inline="always")
def _count_scales(records, begin, end, code_bytes, scale_bytes, counts):  # type: ignore[no-untyped-def]
    """Adds the scales of rows to `counts` (LANES, BINS)."""
    row_bytes = records.shape[1]
    step = LANES * scale_bytes
    rest = row_bytes - (row_bytes - code_bytes) % step
    for row in range(begin, end):
        for first in range(code_bytes, rest, step):
            for lane in range(LANES):  # a constant number, so that the loop is unrolled
                counts[lane, _exponent(records, row, first + lane * scale_bytes, scale_bytes)] += 1
        for first in range(rest, row_bytes, scale_bytes):
            counts[0, _exponent(records, row, first, scale_bytes)] += 1


@njit(cache=True, nogil=True)
def _find_firsts(records, code_bytes, scale_bytes, first_row, counts, firsts):  # type: ignore[no-untyped-def]
    """Fills `firsts` (BINS,) for exponents that were counted and have no first row, -1, yet: these records have it."""
    missing = 0
    for exponent in range(BINS):
        missing += firsts[exponent] < 0 and counts[:, exponent].any()
    for row in range(records.shape[0]):
        if missing == 0:
            return
        for j in range(code_bytes, records.shape[1], scale_bytes):
            exponent = _exponent(records, row, j, scale_bytes)
            if firsts[exponent] < 0:
                firsts[exponent] = first_row + row
                missing -= 1


@njit(cache=True, nogil=True)
def _scan(records, words, mask, limit, width, scale_bytes, first_row, found, counts, firsts, blocks, sums):  # type: ignore[no-untyped-def]
    """Looks at records (rows, row_bytes), whose `words` are the same in the type of a code, and sums `blocks` in passing.

    `blocks` are 64-bit words of the memory that the records begin, a checksum in `sums` for each; none of both leaves that out.
    """
    rows, row_bytes = records.shape
    code_bytes = width * words.itemsize
    begin = 0
    for block in range(max(sums.shape[0], -(-rows * row_bytes // BLOCK_BYTES))):
        if block < sums.shape[0]:
            sums[block] = block_checksum(blocks, block)
        end = min(rows, (block + 1) * BLOCK_BYTES // row_bytes)
        _look_at_codes(words, begin, end, width, mask, limit, first_row, found)
        if scale_bytes == 1:
            _count_scales(records, begin, end, code_bytes, 1, counts)
        elif scale_bytes == 2:
            _count_scales(records, begin, end, code_bytes, 2, counts)
        begin = end
    if scale_bytes:
        _find_firsts(records, code_bytes, scale_bytes, first_row, counts, firsts)


@dataclass(frozen=True, slots=True)
class RowFaults:
    """What is found in records, which one thread looks at in order of their rows; `add` joins what several threads found."""

    encoding: Encoding
    head_dim: int
    _found: NDArray[np.int64] = field(default_factory=lambda: np.array([0, -1, 0]))
    _counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((LANES, BINS), np.int64))  # of scales by exponent
    _firsts: NDArray[np.int64] = field(default_factory=lambda: np.full(BINS, -1, np.int64))  # row of each exponent
    _lock: Lock = field(default_factory=Lock)

    @property
    def zero_rows(self) -> int:
        return int(self._found[ZERO])

    def scan(self, first: int, records: Records) -> None:
        """Looks at records from row `first` on."""
        self._scan(first, records, np.empty(0, "<u8"), np.empty(0, np.uint32))

    def scan_and_sum(self, first: int, records: Records, rows: int) -> Checksums:
        """Looks at `rows` of the records, from row `first` on; gives the checksum of every block of all of them.

        The records are a whole number of blocks.
        """
        sums = np.empty(records.nbytes // BLOCK_BYTES, np.uint32)
        self._scan(first, records[:rows], records.reshape(-1).view("<u8"), sums)
        return sums

    def _scan(self, first: int, records: Records, blocks: NDArray[np.uint64], sums: Checksums) -> None:
        kind, words = self.encoding, self.encoding.words(records)
        width = kind.code_bytes(self.head_dim) // words.itemsize
        codes = (records, words, words.dtype.type(kind.magnitude), kind.not_finite, width)
        _scan(*codes, kind.scale_bytes, first, self._found, self._counts, self._firsts, blocks, sums)

    def add(self, other: "RowFaults") -> None:
        """Joins what was found in other rows."""
        with self._lock:
            for count in (NOT_FINITE, ZERO):
                self._found[count] += other._found[count]
            self._counts[:] += other._counts
            self._firsts[:] = _earlier(self._firsts, other._firsts)
            place = slice(FIRST_NOT_FINITE, FIRST_NOT_FINITE + 1)
            self._found[place] = _earlier(self._found[place], other._found[place])

    def found(self) -> list[tuple[int, str]]:
        """(row, what is wrong) for each kind of fault, at its first row."""
        faults = []
        counts = self._counts.sum(axis=0)
        if bad := int(self._found[NOT_FINITE]):
            faults.append((int(self._found[FIRST_NOT_FINITE]), f"holds a code that is no number ({bad:,} such rows)"))
        for kind, name in ((NOT_A_NUMBER, "no number"), (NEGATIVE, "negative")):
            if counts[kind]:
                faults.append((int(self._firsts[kind]), f"has a scale that is {name} ({counts[kind]:,} such scales)"))
        ordinary = counts[1:NOT_A_NUMBER]
        if ordinary.any():
            median = 1 + int(np.searchsorted(np.cumsum(ordinary), (ordinary.sum() + 1) // 2))
            for e in np.flatnonzero(counts[:NOT_A_NUMBER]):
                if e and abs(e - median) > FAR:
                    what = f"has a scale near 2^{e - 127}, far from the usual 2^{median - 127} ({counts[e]:,} such scales)"
                    faults.append((int(self._firsts[e]), what))
        return faults


def _earlier(known: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smaller of two rows each, where -1 is no row."""
    return np.where((known < 0) | ((found >= 0) & (found < known)), found, known)
