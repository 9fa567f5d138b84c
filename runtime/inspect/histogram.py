"""Histogram: how many numbers fall into each of equal bins. Its edges are part of it, so that no viewer has to guess them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 50
DIGITS = 6  # of an edge, as JSON has it


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bin i holds the numbers from edges[i] to edges[i + 1]; only the last one holds its upper edge too."""

    edges: tuple[float, ...]  # one more than there are bins, ascending
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.edges) == len(self.counts) + 1, "a histogram has one edge more than bins"

    @classmethod
    def of(cls, values: NDArray[np.floating], span: tuple[float, float] | None = None, bins: int = BINS) -> "Histogram":
        """Of finite numbers; `span` is from the first edge to the last, by default from the least number to the largest."""
        counts, edges = np.histogram(values.astype(np.float64), bins, span)
        return cls(tuple(edges.tolist()), tuple(counts.tolist()))

    def to_json(self) -> dict[str, Any]:
        return {"edges": [round(edge, DIGITS) for edge in self.edges], "counts": list(self.counts)}
