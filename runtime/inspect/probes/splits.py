"""Splits: the judged positions of a text in parts that are looked at apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.inspect.probes.token_classes import CLASSES, POSITIONS

BINS = 4
ACROSS, NEVER = "reaches back beyond the text", "never"


@dataclass(frozen=True, slots=True)
class Split:
    """Every position is in exactly one of the parts, of which some may be empty."""

    title: str  # what the parts differ in
    names: tuple[str, ...]  # of the parts
    parts: NDArray[np.int64]  # (P,) an index into the names

    def __post_init__(self) -> None:
        assert not len(self.parts) or 0 <= self.parts.min() <= self.parts.max() < len(self.names)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Positions of each part."""
        return np.bincount(self.parts, minlength=len(self.names))


def by_class(classes: NDArray[np.int64], title: str) -> Split:
    return Split(title, CLASSES, classes)


def by_place(places: NDArray[np.int64], title: str) -> Split:
    return Split(title, POSITIONS, places)


def by_count(counts: NDArray[np.int64], title: str) -> Split:
    """Parts by how often n-grams occur: not known (below 0), never, and up to BINS quantiles of the others.

    A count is in one part only, so where many are alike there are fewer parts, and they are not of one size.
    """
    edges = _edges(counts[counts > 0])
    lows = [1, *(edge + 1 for edge in edges[:-1])][: len(edges)]
    names = [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in zip(lows, edges, strict=True)]
    parts = np.where(counts > 0, 2 + np.searchsorted(edges, counts), np.where(counts == 0, 1, 0))
    return Split(title, (ACROSS, NEVER, *names), parts)


def by_size(values: NDArray[np.floating], title: str) -> Split:
    """Quantiles of a figure, BINS of them or fewer; names say from where to where each goes."""
    edges = _edges(values)
    parts = np.searchsorted(edges, values)
    lows = [values[parts == part].min() for part in range(len(edges))]
    names = tuple(f"{low:.3g} to {high:.3g}" for low, high in zip(lows, edges, strict=True))
    return Split(title, names, parts)


def _edges(values: NDArray[Any]) -> Sequence[Any]:
    """The largest value of each quantile, ascending, each once; none of no values."""
    ordered = np.sort(values)
    lasts = np.ceil(np.arange(1, BINS + 1) * len(values) / BINS).astype(int) - 1
    return np.unique(ordered[lasts]).tolist() if len(values) else []
