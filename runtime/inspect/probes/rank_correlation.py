"""Spearman's rank correlation: whether two figures of tokens rise together, in whatever shape."""

import numpy as np
from numpy.typing import NDArray


def spearman(x: NDArray[np.generic], y: NDArray[np.generic]) -> float | None:
    """From -1 to 1, equal values sharing the mean of their ranks; None where either does not vary."""
    ranks = [_ranks(values) for values in (x, y)]
    if len(x) < 2 or any(rank.std() == 0 for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: NDArray[np.generic]) -> NDArray[np.float64]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which.reshape(-1)].astype(np.float64)
