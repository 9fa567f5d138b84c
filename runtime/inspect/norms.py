"""Norms: how rows' norms are distributed, counted as rows pass by, in memory that does not grow with them.

A norm is counted by the upper 20 bits of its float32: sign, exponent and 11 bits of the mantissa. So every percentile is exact
to one part in 2,048, however many rows there are and whatever their scale. Rows of zeros are counted apart, in no percentile.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOW_BITS = 12  # of a float32 that are not looked at
BINS = 0x7F800000 >> LOW_BITS  # below infinity
PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
HISTOGRAM_BINS = 50
EXPLODED = 10  # a row with so many times the median norm is remarkable
NAMED = 5  # largest rows that are named


@dataclass(slots=True)
class Norms:
    """Norms of rows of a layer, as they pass by; those that are not finite are left to `table/faults.py`."""

    zeros: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))  # of the others
    largest: list[tuple[float, int]] = field(default_factory=list)  # norm, row; the largest first

    def add(self, first: int, norms: NDArray[np.float64]) -> None:
        """Norms of rows from row `first` of the layer on."""
        self.zeros += int((norms == 0).sum())
        places = np.flatnonzero((norms > 0) & (norms < np.finfo(np.float32).max))
        np.add.at(self.counts, norms[places].astype(np.float32).view(np.uint32) >> LOW_BITS, 1)
        top = places[np.argpartition(-norms[places], NAMED)[:NAMED]] if len(places) > NAMED else places
        self.largest = sorted([*self.largest, *((float(norms[i]), first + int(i)) for i in top)], key=_largest_first)[:NAMED]

    @property
    def rows(self) -> int:
        """How many have a norm that is neither zero nor beyond all numbers."""
        return int(self.counts.sum())

    def percentiles(self) -> dict[int, float]:
        """The norm that so many percent of the rows do not exceed; empty without rows."""
        if not (rows := self.rows):
            return {}
        sums = np.cumsum(self.counts)
        bins = np.searchsorted(sums, [max(1, -(-rows * p // 100)) for p in PERCENTILES])
        return dict(zip(PERCENTILES, _middles(bins).tolist(), strict=True))

    def histogram(self) -> dict[str, Any]:
        """HISTOGRAM_BINS bins of equal width, from 0 to the largest norm."""
        bins = np.flatnonzero(self.counts)
        largest = self.largest[0][0] if self.largest else 1.0
        counts, edges = np.histogram(
            np.minimum(_middles(bins), largest), HISTOGRAM_BINS, (0.0, largest), weights=self.counts[bins]
        )
        return {"edges": edges.tolist(), "counts": counts.astype(int).tolist()}

    def exploded(self) -> tuple[int, list[tuple[float, int]]]:
        """How many rows have more than EXPLODED times the median norm, and the largest of them."""
        if not self.rows:
            return 0, []
        limit = EXPLODED * self.percentiles()[50]
        bins = np.flatnonzero(self.counts)
        return int(self.counts[bins[_middles(bins) > limit]].sum()), [found for found in self.largest if found[0] > limit]


def _middles(bins: NDArray[np.integer]) -> NDArray[np.float64]:
    """The norm in the middle of each bin."""
    bits = (bins.astype(np.uint32) << np.uint32(LOW_BITS)) | np.uint32(1 << LOW_BITS - 1)
    return bits.view(np.float32).astype(np.float64)


def _largest_first(found: tuple[float, int]) -> tuple[float, int]:
    return -found[0], found[1]
