"""The batches of each training step.

A batch follows from the seed and the step alone, so nothing has to be saved to resume: every epoch visits each window of
`length` tokens once, in a fresh order.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError


@dataclass(frozen=True, slots=True)
class Batches:
    ids: NDArray[np.int32]
    batch: int
    length: int
    seed: int
    share: range | None = None  # which of each batch's sequences this process trains on; None: all

    def __post_init__(self) -> None:
        if len(self.ids) <= self.length:
            raise EngramError(
                f"the training side has {len(self.ids):,} tokens, expected more than one window of {self.length}",
                hint="give more text, or shorter windows, as in --set recipe.length=16",
            )

    @property
    def windows(self) -> int:
        """How many different inputs there are."""
        return (len(self.ids) - 1) // self.length

    def require_full(self) -> None:
        """Raises EngramError where a batch would have to take a window twice: it costs the time of a whole one for less."""
        if self.windows < self.batch:
            raise EngramError(
                f"the training side has {len(self.ids):,} tokens, {self.windows:,} windows of {self.length}; "
                f"a batch takes {self.batch:,}",
                hint=f"give more text, or take smaller batches, as in --set recipe.batch={self.windows}",
            )

    def at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(B, T) inputs and (B, T) targets, each the token after its input, of the share of the batch."""
        windows = self.windows
        first = step * self.batch
        numbers = (first + n for n in self.share or range(self.batch))
        starts = [int(_order(windows, self.seed, n // windows)[n % windows]) * self.length for n in numbers]
        block = np.stack([self.ids[start : start + self.length + 1] for start in starts]).astype(np.int64)
        return block[:, :-1], block[:, 1:]


@lru_cache(maxsize=2)
def _order(windows: int, seed: int, epoch: int) -> NDArray[np.intp]:
    return np.random.default_rng([seed, epoch]).permutation(windows)
