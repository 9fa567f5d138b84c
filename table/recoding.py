"""Rows of one encoding written in another, piece by piece."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from table.encodings.encoding import Encoding, Records, Values, encoding
from table.store.writer import PIECE_BYTES, Fill

E4M3_LARGEST = 448.0


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """A table that can be read from any row on."""

    encoding: Encoding
    head_dim: int
    rows: int
    scale: float
    read: Fill

    def values(self, first: int, count: int) -> Values:
        """(count, head_dim) Decoded rows."""
        records = np.empty((count, self.encoding.row_bytes(self.head_dim)), np.uint8)
        self.read(first, records)
        return self.encoding.decoded(records, self.head_dim, self.scale)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """First row and count of pieces that fit the processor's cache."""
        per_piece = max(1, PIECE_BYTES // (4 * self.head_dim))
        for first in range(0, self.rows, per_piece):
            yield first, min(per_piece, self.rows - first)


@dataclass(frozen=True, slots=True)
class Recoding:
    """Rows on their way to an encoding, with the scale that a table-scaled one needs."""

    source: EncodedRows
    target: Encoding
    scale: float

    @classmethod
    def of(cls, source: EncodedRows, target: Encoding) -> "Recoding":
        """Reads every row once, to find the largest, when the target has one scale for the table."""
        if source.encoding == target or not target.table_scale:
            return cls(source, target, source.scale if source.encoding == target else 1.0)
        return cls(source, target, table_scale(source))

    def fill(self, first: int, records: Records) -> None:
        if self.source.encoding == self.target:
            self.source.read(first, records)
        else:
            records[:] = self.target.encoded(self.source.values(first, len(records)), self.scale)[0]


def table_scale(source: EncodedRows) -> float:
    """The bfloat16 scale that takes a table's largest finite magnitude to the largest code; 1 for a table of zeros."""
    largest = max((_largest(source.values(*piece)) for piece in source.pieces()), default=0.0)
    if largest == 0:
        return 1.0
    bfloat16 = encoding("bfloat16")
    return float(bfloat16.decoded(bfloat16.encoded(np.array([[largest / E4M3_LARGEST]], np.float32))[0], 1)[0, 0])


def _largest(values: Values) -> float:
    return float(np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).max())
