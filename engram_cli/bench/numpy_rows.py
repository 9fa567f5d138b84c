"""The addressing rule in numpy at its strongest: whole-array operations into memory that was made beforehand.

Three forms, because none is the fastest at every size. The published one takes a remainder per head. One remainder for all
heads of an order saves calls, which are what few tokens cost. A quotient, which numpy divides with vector instructions,
multiplied back and subtracted is faster than a remainder once the calls no longer count.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hashing.spec import HashSpec

Array = NDArray[np.int64]


class NumpyRows:
    """Rows of one layer for whole sequences without boundaries, written into `out` (B, T, columns)."""

    def __init__(self, spec: HashSpec, layer: int, out: Array) -> None:
        shape, heads = out.shape[:2], spec.heads
        self._multipliers = spec.multipliers[spec.layer_index(layer)]
        self._moduli, self._offsets = (np.array(numbers, np.int64) for numbers in (spec.moduli(layer), spec.offsets(layer)))
        self._shifted = np.full((spec.max_order, *shape), spec.pad_id, np.int64)  # by look-back distance
        self._mix, self._product, self._rest = np.empty((3, *shape), np.int64)
        self._orders = [slice(first, first + heads) for first in range(0, spec.columns, heads)]
        self._out, self._columns = out, [out[..., column] for column in range(spec.columns)]

    def _mixes(self, ids: Array) -> Iterator[slice]:
        """Puts the mix of each order in turn into `self._mix`; gives the order's columns."""
        np.multiply(ids, self._multipliers[0], out=self._mix)
        for distance, columns in enumerate(self._orders, 1):
            shifted = self._shifted[distance]
            shifted[:, distance:] = ids[:, :-distance]
            np.multiply(shifted, self._multipliers[distance], out=self._product)
            np.bitwise_xor(self._mix, self._product, out=self._mix)
            yield columns

    def by_head(self, ids: Array) -> Array:
        """A remainder per head, as published."""
        for columns in self._mixes(ids):
            for column in range(columns.start, columns.stop):
                np.remainder(self._mix, self._moduli[column], out=self._rest)
                np.add(self._rest, self._offsets[column], out=self._columns[column])
        return self._out

    def by_order(self, ids: Array) -> Array:
        """One remainder for all heads of an order."""
        for columns in self._mixes(ids):
            np.remainder(self._mix[..., None], self._moduli[columns], out=self._out[..., columns])
        return np.add(self._out, self._offsets, out=self._out)

    def by_quotient(self, ids: Array) -> Array:
        """A quotient per head, multiplied back and subtracted."""
        for columns in self._mixes(ids):
            for column in range(columns.start, columns.stop):
                np.floor_divide(self._mix, self._moduli[column], out=self._rest)
                np.multiply(self._rest, self._moduli[column], out=self._rest)
                np.subtract(self._mix, self._rest, out=self._rest)
                np.add(self._rest, self._offsets[column], out=self._columns[column])
        return self._out
