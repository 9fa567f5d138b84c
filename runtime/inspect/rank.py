"""Effective rank: over how many directions a head's rows spread.

For the singular values σ of the rows (not centred), two usual numbers between 1 and the width of a row:

    entropy        exp(-Σ p ln p) with p = σ / Σσ            Roy and Vetterli, "The effective rank", EUSIPCO 2007
    participation  (Σ σ²)² / Σ σ⁴                            the participation ratio of the spectrum of second moments

The second weighs large directions more. Random rows come near the width; rows that all say one thing come near 1.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ROWS = 4096  # of a head that are taken, the first ones that are neither zeros nor beyond all numbers


@dataclass(slots=True)
class Spectrum:
    """Second moments of a head's rows, as they pass by."""

    rows: int = 0
    moments: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))  # (head_dim, head_dim)

    def add(self, vectors: NDArray[np.float32], norms: NDArray[np.float64]) -> None:
        if self.rows == ROWS:
            return
        chosen = vectors[(norms > 0) & np.isfinite(norms)][: ROWS - self.rows].astype(np.float64)
        moments = chosen.T @ chosen
        self.moments = moments if not self.rows else self.moments + moments
        self.rows += len(chosen)

    def ranks(self) -> tuple[float, float] | None:
        """(entropy, participation); None where there were no rows."""
        if not self.rows:
            return None
        squares = np.linalg.eigvalsh(self.moments).clip(min=0)
        squares /= squares.sum()
        values = np.sqrt(squares[squares > 1e-15 * len(squares)])  # what is left of zero by rounding is no direction
        shares = values / values.sum()
        return float(np.exp(-(shares * np.log(shares)).sum())), float(1 / (squares**2).sum())
