"""What is wrong with rows themselves: codes that are no numbers, scales out of the ordinary, rows of zeros.

One pass over records, as fast as memory: the largest magnitude of a row's codes tells both whether one is NaN or infinite and
whether all are zero. Scales are counted by exponent, with the first row of each, and judged at the end against the median.
"""

from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numba import njit
from numpy.typing import NDArray

from table.encodings.encoding import Encoding, Records

FAR = 32  # a scale this many powers of two from the median is out of the ordinary
NOT_A_NUMBER, NEGATIVE = 255, 256  # bins after those of the exponents

# word of a code, the bits of its magnitude, and the smallest magnitude that is no number
CODES = {
    "float32": ("<u4", 0x7FFFFFFF, 0x7F800000),
    "float16": ("<u2", 0x7FFF, 0x7C00),
    "bfloat16": ("<u2", 0x7FFF, 0x7F80),
    "e4m3-e8m0": ("u1", 0x7F, 0x7F),
    "e4m3": ("u1", 0x7F, 0x7F),
    "int8": ("u1", 0xFF, 0x100),
    "int4": ("u1", 0xFF, 0x100),
}


@njit(cache=True, nogil=True)
def _scan_codes(words, width, mask, limit, flags):  # type: ignore[no-untyped-def]
    """flags (rows,): 1 for a code that is no number, 2 for zeros alone. In the code's own type throughout, for the vectors."""
    word = words.dtype.type
    for i in range(words.shape[0]):
        largest = word(0)
        for j in range(width):
            largest = max(largest, word(words[i, j] & mask))
        flags[i] = 1 * (largest >= limit) + 2 * (largest == 0)


@njit(inline="always")
def _exponent(records, i, j, scale_bytes):  # type: ignore[no-untyped-def]
    if scale_bytes == 1:
        return np.int64(records[i, j])
    if records[i, j + 1] & 128:
        return np.int64(NEGATIVE)
    return np.int64((records[i, j + 1] & 127) << 1 | records[i, j] >> 7)


@njit(cache=True, nogil=True)
def _count_scales(records, first_column, scale_bytes, first_row, counts, firsts):  # type: ignore[no-untyped-def]
    for i in range(records.shape[0]):
        for j in range(first_column, records.shape[1], scale_bytes):
            exponent = _exponent(records, i, j, scale_bytes)
            counts[exponent] += 1
            if firsts[exponent] < 0 or first_row + i < firsts[exponent]:
                firsts[exponent] = first_row + i


@dataclass(slots=True)
class RowFaults:
    """Gathers over a layer's records, from several threads."""

    encoding: Encoding
    head_dim: int
    rows_not_numbers: int = 0
    first_not_number: int = -1
    zero_rows: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(257, np.int64))
    firsts: NDArray[np.int64] = field(default_factory=lambda: np.full(257, -1, np.int64))
    _lock: Lock = field(default_factory=Lock)

    def scan(self, first: int, records: Records) -> None:
        """Records from row `first` on."""
        word, mask, limit = CODES[self.encoding.name]
        dtype = np.dtype(word).type
        flags = np.empty(len(records), np.uint8)
        codes = self.encoding.code_bytes(self.head_dim)
        _scan_codes(records.view(word), codes // np.dtype(word).itemsize, dtype(mask), np.int64(limit), flags)
        counts, firsts = np.zeros(257, np.int64), np.full(257, -1, np.int64)
        if self.encoding.scale_bytes:
            _count_scales(records, codes, self.encoding.scale_bytes, first, counts, firsts)
        bad = np.flatnonzero(flags & 1)
        with self._lock:
            self.rows_not_numbers += len(bad)
            if len(bad):
                self.first_not_number = _earlier(self.first_not_number, first + int(bad[0]))
            self.zero_rows += int(np.count_nonzero(flags & 2))
            self.counts += counts
            seen = firsts >= 0
            self.firsts[seen] = np.where(self.firsts[seen] < 0, firsts[seen], np.minimum(self.firsts[seen], firsts[seen]))

    def found(self) -> list[tuple[int, str]]:
        """(row, what is wrong) for each kind of fault, at its first row."""
        faults = []
        if self.rows_not_numbers:
            faults.append((self.first_not_number, f"holds a code that is no number ({self.rows_not_numbers:,} such rows)"))
        for kind, name in ((NOT_A_NUMBER, "no number"), (NEGATIVE, "negative")):
            if self.counts[kind]:
                faults.append((int(self.firsts[kind]), f"has a scale that is {name} ({self.counts[kind]:,} such scales)"))
        ordinary = self.counts[1:NOT_A_NUMBER]
        if ordinary.any():
            median = 1 + int(np.searchsorted(np.cumsum(ordinary), (ordinary.sum() + 1) // 2))
            for e in np.flatnonzero(self.counts[:NOT_A_NUMBER]):
                if e and abs(e - median) > FAR:
                    what = f"has a scale near 2^{e - 127}, far from the usual 2^{median - 127} ({self.counts[e]:,} such scales)"
                    faults.append((int(self.firsts[e]), what))
        return faults


def _earlier(known: int, found: int) -> int:
    return found if known < 0 else min(known, found)
