"""Bootstrap: how far a mean over tokens would move with other documents of the same kind.

Tokens of one document are alike, so documents are drawn and not tokens: as many as there are, with replacement, `RESAMPLES`
times. Each draw gives the mean again, as the sum over the drawn documents' tokens divided by how many those are, and the
interval is what the middle 95 % of the draws span. Draws come from a seed, so the same figures give the same interval; all
means of a call, and of several calls on the same number of documents, are taken over the same draws.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 0
LEVEL_PERCENT = 95.0
DRAWN_AT_ONCE = 1 << 22  # numbers of documents

Interval = tuple[float, float]


def mean_interval(documents: NDArray[np.integer], values: NDArray[np.floating]) -> Interval | None:
    """The interval of the mean of tokens' values (T,), given the document of each; None where there is one document."""
    where = np.zeros(len(values), np.int64)
    return mean_intervals(documents, values[None], where, 1)[0][0]


def mean_intervals(
    documents: NDArray[np.integer], values: NDArray[np.floating], parts: NDArray[np.integer], count: int
) -> list[list[Interval | None]]:
    """By row of the values (V, T) and by part of the tokens, numbered below `count`, the interval of the mean.

    Draws are of all documents, whatever parts they have tokens of. None where a part's tokens are of one document or none: that
    says nothing of how much documents differ.
    """
    numbers, which = np.unique(documents, return_inverse=True)
    cells, size = which * count + parts, len(numbers) * count
    tokens = np.bincount(cells, minlength=size).reshape(-1, count)  # (G, P)
    sums: NDArray[np.float64] = np.stack([np.bincount(cells, row, size).reshape(-1, count) for row in values], 1)  # (G, V, P)
    bounds = _ratio_bounds(sums, tokens)
    enough = np.count_nonzero(tokens, 0) > 1
    return [[(float(low), float(high)) if enough[p] else None for p, (low, high) in enumerate(row)] for row in bounds]


def _ratio_bounds(sums: NDArray[np.float64], tokens: NDArray[np.intp]) -> NDArray[np.float64]:
    """(V, P, 2) Where the middle draws of Σ sums (G, V, P) / Σ tokens (G, P) over documents begin and end."""
    documents, rows, parts = sums.shape
    drawn = np.empty((RESAMPLES, rows, parts))
    first = 0
    for times in _draws(documents):
        total = (times @ tokens)[:, None]
        total_sums = (times @ sums.reshape(documents, -1)).reshape(-1, rows, parts)
        drawn[first : first + len(times)] = np.divide(
            total_sums, total, out=np.full_like(total_sums, np.nan), where=total > 0
        )  # a draw may lack a part altogether
        first += len(times)
    tail = (100 - LEVEL_PERCENT) / 2
    bounds = np.full((rows, parts, 2), np.nan)
    filled = np.count_nonzero(tokens, 0) > 0
    bounds[:, filled] = np.nanpercentile(drawn[:, :, filled], (tail, 100 - tail), axis=0).transpose(1, 2, 0)
    return bounds


def _draws(documents: int) -> Iterator[NDArray[np.float64]]:
    """(at most RESAMPLES, G) How many times each document is drawn, a few draws at a time."""
    generator, at_once = np.random.default_rng(SEED), max(1, DRAWN_AT_ONCE // documents)
    for first in range(0, RESAMPLES, at_once):
        draws = min(at_once, RESAMPLES - first)
        chosen = generator.integers(0, documents, (draws, documents)) + np.arange(draws)[:, None] * documents
        yield np.bincount(chosen.ravel(), minlength=draws * documents).reshape(draws, documents).astype(np.float64)
