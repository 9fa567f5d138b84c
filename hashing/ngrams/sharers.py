"""Sharers: which of a corpus's n-grams read given rows, found by hashing every counted n-gram again.

There is no inverted index: one pass over the counts answers for any number of rows of any layers, a million n-grams in a tenth
of a second, in memory that grows with what is found and not with the file. What the spec reads alike (its boundary and the
start of a document become pads) is one n-gram here, as it is one address; its counts are added up.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashing.ngrams.collisions import as_read, mixes
from hashing.ngrams.counts import NgramCounts
from hashing.spec import HashSpec

SIEVE = 1 << 16  # a row that is wanted is told from most others by these low bits

Readers = Mapping[int, Mapping[int, tuple["Known", ...]]]  # layer → row → the n-grams that read it, the most frequent first


@dataclass(frozen=True, slots=True)
class Known:
    """An n-gram that the corpus has, as a spec reads it."""

    ids: tuple[int, ...]  # canonical, in reading order; the pad where look-back is blocked
    count: int  # times in the corpus, at least 1


@dataclass(frozen=True, slots=True)
class Column:
    """A head of a layer, and where its rows lie in the layer's table."""

    order: int
    head: int  # of the order
    first: int  # row
    rows: int


def column_of(spec: HashSpec, layer: int, row: int) -> Column | None:
    """The head that a row of a layer belongs to; None for padding, the rows after the last head's that nothing reads."""
    offsets, moduli = spec.offsets(layer), spec.moduli(layer)
    place = bisect_right(offsets, row) - 1
    if row < 0 or row >= offsets[place] + moduli[place]:
        return None
    return Column(place // spec.heads + 2, place % spec.heads, offsets[place], moduli[place])


def readers_of(spec: HashSpec, counts: NgramCounts, rows: Mapping[int, Collection[int]]) -> Readers:
    """Every counted n-gram that reads one of the rows asked for, by layer; each row has an entry, if an empty one.

    Raises EngramError for counts of another vocabulary, or that lack an order of the rows.
    """
    counts.check_vocab(spec.vocab_fingerprint)
    found: dict[int, dict[int, Counter[tuple[int, ...]]]] = {
        layer: {row: Counter() for row in asked} for layer, asked in rows.items()
    }
    heads = [head for layer, asked in rows.items() for head in _wanted(spec, layer, asked)]
    for order in sorted({head.column.order for head in heads}):
        of_order = [head for head in heads if head.column.order == order]
        for piece in counts.pieces(order):
            ids = as_read(spec, piece.ids)
            for layer, row, place in _reads(spec, of_order, ids):
                found[layer][row][tuple(ids[place].tolist())] += int(piece.counts[place])
    return {layer: {row: _heaviest_first(known) for row, known in of_row.items()} for layer, of_row in found.items()}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Rows of one head that are asked for."""

    layer: int
    column: Column
    rows: NDArray[np.int64]  # within the head, ascending
    sieve: NDArray[np.bool_]  # (SIEVE,) whether one of the rows ends in these bits

    def places(self, read: NDArray[np.int64]) -> NDArray[np.intp]:
        """Where the rows that were read are among those asked for."""
        if len(self.rows) == 1:
            return np.flatnonzero(read == self.rows[0])
        likely = np.flatnonzero(self.sieve[read & (SIEVE - 1)])
        return likely[np.isin(read[likely], self.rows)]


def _wanted(spec: HashSpec, layer: int, rows: Collection[int]) -> Iterator[_Wanted]:
    columns: dict[Column, list[int]] = {}
    for row in sorted(set(rows)):
        if column := column_of(spec, layer, row):
            columns.setdefault(column, []).append(row - column.first)
    for column, inside in columns.items():
        sieve = np.zeros(SIEVE, bool)
        sieve[np.array(inside) % SIEVE] = True
        yield _Wanted(layer, column, np.array(inside, np.int64), sieve)


def _reads(spec: HashSpec, heads: list[_Wanted], ids: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """(layer, row, place among the n-grams) of every read of a wanted row."""
    for layer in dict.fromkeys(head.layer for head in heads):
        mix = mixes(spec, layer, ids)
        for head in heads:
            if head.layer == layer:
                read = mix % head.column.rows
                for place in head.places(read).tolist():
                    yield layer, head.column.first + int(read[place]), place


def _heaviest_first(known: Counter[tuple[int, ...]]) -> tuple[Known, ...]:
    """Of equally frequent ones, the smaller ids first: the same counts give the same list."""
    return tuple(Known(ids, count) for ids, count in sorted(known.items(), key=lambda item: (-item[1], item[0])))
