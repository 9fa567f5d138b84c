"""Spearman's rank correlation: whether two figures of tokens rise together, in whatever shape."""

import math

import numpy as np
from numpy.typing import NDArray


def spearman(x: NDArray[np.generic], y: NDArray[np.generic]) -> float | None:
    """From -1 to 1, equal values sharing the mean of their ranks; None where either does not vary."""
    ranks = np.stack([_ranks(values) for values in (x, y)])
    if len(x) < 2 or not ranks.std(1).all():
        return None
    centred = ranks - ranks.mean(1, keepdims=True)
    x_squared, y_squared = (centred**2).sum(1).tolist()
    return float(centred[0] @ centred[1]) / math.sqrt(x_squared * y_squared)


def _ranks(values: NDArray[np.generic]) -> NDArray[np.float64]:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[which.reshape(-1)]
    return ranks
