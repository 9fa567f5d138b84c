"""DocumentMean: the mean of figures per token, with an error that knows that tokens of one document are alike.

Tokens are no independent draws: a long file of tables counts a thousand times and is one piece of evidence. With S_d the sum
and n_d the number of a document's tokens, n = Σ n_d, G documents and m = Σ S_d / n, the standard error is the one for clusters,

    sqrt(G / (G - 1) · Σ_d (S_d - m · n_d)²) / n

which is that of a mean of G numbers where all documents are of one length. It says how far the figure would move with other
documents of the same kind.
"""

import math

import numpy as np
from numpy.typing import NDArray


class DocumentMean:
    """Gathers figures of tokens, piece by piece, in memory that grows with the number of documents alone."""

    def __init__(self, documents: int) -> None:
        self._sums = np.zeros(documents)
        self._counts = np.zeros(documents, np.int64)

    def add(self, documents: NDArray[np.integer], values: NDArray[np.floating]) -> None:
        """Takes in the values of tokens, and the number of the document of each, arrays of one shape."""
        numbers, where = np.unique(documents.ravel(), return_inverse=True)
        self._sums[numbers] += np.bincount(where, values.ravel())
        self._counts[numbers] += np.bincount(where)

    @property
    def tokens(self) -> int:
        return int(self._counts.sum())

    @property
    def documents(self) -> int:
        """Those of which there was a token."""
        return int(np.count_nonzero(self._counts))

    @property
    def mean(self) -> float:
        return float(self._sums.sum() / self.tokens)

    @property
    def standard_error(self) -> float | None:
        """None where there are fewer than two documents: one says nothing of how much they differ."""
        if self.documents < 2:
            return None
        residuals = self._sums - self.mean * self._counts
        correction = self.documents / (self.documents - 1)
        return math.sqrt(correction * float(residuals @ residuals)) / self.tokens
