"""Sample: which rows of a head are looked at, and those rows piece by piece in bounded memory.

A small head is looked at whole. Of a large one some stretches are, at even distances: rows are hashed, so neighbours in number
have nothing in common and a stretch is as good a sample as scattered rows, for a hundredth of the reads from a drive. Which
rows depends on nothing but the head's size, so the same store gives the same figures.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from hashing.ngrams.sharers import Column
from table.encodings.encoding import Records
from table.store.manifest import LayerShards
from table.store.parted_table import LaidOutTable

WHOLE_ROWS = 1 << 17  # of a head, up to which all are looked at
STRETCHES = 64
STRETCH_ROWS = 512
PIECE_BYTES = 16 << 20  # of vectors
MAPPED_BYTES = 256 << 20  # of a table that may be in this process's memory before it is let go


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows in succession."""

    first: int  # in the layer's table
    rows: int
    records: Records | None  # (rows, row_bytes), mapped; None where the shard is absent: zeros

    def vectors(self, table: LaidOutTable) -> NDArray[np.float32]:
        """(rows, head_dim)"""
        if self.records is None:
            return np.zeros((self.rows, table.head_dim), np.float32)
        return table.decoded(self.records)


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of a head, as stretches."""

    column: Column
    stretches: tuple[tuple[int, int], ...]  # first row in the layer's table, and how many

    @classmethod
    def of(cls, column: Column, full: bool = False) -> "Sample":
        """All rows of the head where it has few, or all are asked for."""
        if full or column.rows <= WHOLE_ROWS:
            return cls(column, ((column.first, column.rows),))
        starts = np.linspace(0, column.rows - STRETCH_ROWS, STRETCHES).astype(int).tolist()
        return cls(column, tuple((column.first + start, STRETCH_ROWS) for start in starts))

    @property
    def rows(self) -> int:
        return sum(count for _, count in self.stretches)

    @property
    def is_whole(self) -> bool:
        return self.rows == self.column.rows

    def pieces(self, table: LaidOutTable, cut: LayerShards | None) -> Iterator[Piece]:
        """The rows, in order; what was looked at is let go of from time to time, so that a large table need not fit memory.

        `cut` says which shards of a store's table are there; with None all rows are.
        """
        mapped = 0
        most = max(1, PIECE_BYTES // (4 * table.head_dim))
        for first, count in self.stretches:
            row, end = first, first + count
            while row < end:
                last, is_there = min(end, row + most), True
                if cut:
                    shard, inside = divmod(row, cut.shard_rows)
                    last, is_there = min(last, row - inside + cut.shard_rows), shard in cut.shards
                yield Piece(row, last - row, table.stretch(row, last) if is_there else None)
                mapped += (last - row) * table.row_bytes
                if mapped > MAPPED_BYTES:
                    table.advise(mmap.MADV_DONTNEED)
                    mapped = 0
                row = last


def norms_of(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(rows,) L2 norms, of numbers up to the largest of float32."""
    norms: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return norms


def finite(value: float) -> float | None:
    """The number, or None, as JSON can have it."""
    return value if isfinite(value) else None
