"""Packing: how an n-gram of canonical ids becomes two 64-bit words, and back; `partition_kernel.py` says what is in them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.ngrams import partition_kernel as kernel


@dataclass(frozen=True, slots=True)
class Packing:
    """How n-grams of up to `longest` of `canonical_size` ids fill two 64-bit words.

    Raises EngramError when they need more than 128 bits.
    """

    longest: int
    canonical_size: int

    def __post_init__(self) -> None:
        if self.longest > 2 * self.in_first:
            raise EngramError(f"n-grams of {self.longest} out of {self.canonical_size} canonical ids do not fit 128 bits")

    @property
    def bits(self) -> int:
        """Bits of an id."""
        return self.canonical_size.bit_length()

    @property
    def in_first(self) -> int:
        """Ids in the first word."""
        return min(self.longest, 64 // self.bits)

    def wide(self, order: int) -> bool:
        """Whether n-grams of this order need the second word."""
        return order > self.in_first

    def layout(self, order: int) -> tuple[int, int, int, np.uint64, np.uint64]:
        """What the scatter needs to know of an order; the last two are the bits that its n-grams fill of either word."""
        first = min(order, self.in_first)
        masks = np.uint64((1 << self.bits * first) - 1), np.uint64((1 << self.bits * (order - first)) - 1)
        return order, self.bits, self.in_first, *masks

    def pack(self, ids: NDArray[np.int32]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
        """(partition, mixed, rest) of n-grams (count, order); the rest is empty for an order that fits one word."""
        order = ids.shape[1]
        words = np.zeros((2, len(ids)), np.uint64)
        for distance in range(order):
            here = (ids[:, order - 1 - distance].astype(np.int64) + 1).astype(np.uint64)
            place, word = (distance, 0) if distance < self.in_first else (distance - self.in_first, 1)
            words[word] |= here << np.uint64(self.bits * place)
        pairs = words[0] & np.uint64((1 << 2 * self.bits) - 1)
        product = (words[0] ^ (words[1] * kernel.FOLD)) * kernel.SPREAD
        mixed = (product << kernel.ROTATION) | (product >> kernel.PARTITION_SHIFT)
        return (pairs * kernel.SPREAD) >> kernel.PARTITION_SHIFT, mixed, words[1] if self.wide(order) else words[1, :0]

    def unpack(self, mixed: NDArray[np.uint64], rest: NDArray[np.uint64], order: int) -> NDArray[np.int32]:
        """(order, count) The ids of n-grams, the oldest first, -1 for what blocks."""
        ids = np.empty((order, len(mixed)), np.int32)
        kernel.unpack(mixed, rest, self.bits, self.in_first, ids)
        return ids
