"""Places: where a run's training side reads a row or an n-gram, as a fair sample of positions.

The side is taken as one sequence, as its tokens lie: an n-gram may reach across the end of a document, as it does in training,
unless the spec has a boundary. (Training cuts the sequence into windows, whose first tokens read the pad; that is left aside.)
It is gone through once, piece by piece, whatever is looked for: n-grams by comparing canonical ids, rows by hashing every piece
again and comparing each row with those of its own column. A side of more than SCANNED_TOKENS is not read in full, but a fair
sample of its pieces. A position is in the sample if its hash is among the least: that is the same sample whenever it is taken,
and spread over the whole side, where the first occurrences would come from one document.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hashing.hasher import Hasher
from hashing.spec import HashSpec
from hashing.vocab import CanonicalVocab
from runtime.windows import hashes, sample

PIECE_TOKENS = 1 << 18
SCANNED_TOKENS = 1 << 26
WAITING = 1 << 20  # positions that are gathered before those beyond the sample are dropped
FILTER = 1 << 16  # entries of the table that passes over most rows that nobody looks for
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Places:
    occurrences: int  # among the tokens that were read
    tokens: int  # of the side that were read: all, or SCANNED_TOKENS at most
    positions: Ids  # (at most as many as were asked for,) in the order of their hashes: any first few are a fair sample too


class Sampler:
    """Gathers positions of several things, and keeps `most` of each, in memory that does not grow with the text."""

    def __init__(self, things: int, most: int) -> None:
        self.totals, self._most = np.zeros(things, np.int64), most
        self._kept = np.empty((2, 0), np.int64)  # things, positions
        self._new: list[Ids] = []
        self._waiting = 0  # how many positions these are

    def add(self, thing: int, positions: Ids) -> None:
        self.totals[thing] += len(positions)
        self._new.append(np.stack([np.full(len(positions), thing), positions]))
        self._waiting += len(positions)
        if self._waiting > WAITING:
            self._prune()

    def _prune(self) -> None:
        both = np.concatenate([self._kept, *self._new], axis=1)
        both = both[:, np.lexsort((hashes(both[1]), both[0]))]
        rank = np.arange(both.shape[1]) - np.searchsorted(both[0], both[0])  # within the positions of a thing
        self._kept, self._new, self._waiting = both[:, rank < self._most], [], 0

    def places(self, tokens: int) -> list[Places]:
        """Of each thing, after `tokens` tokens were read."""
        self._prune()
        ends = np.searchsorted(self._kept[0], np.arange(len(self.totals) + 1))
        parts = [self._kept[1][begin:end] for begin, end in pairwise(ends.tolist())]
        return [Places(int(total), tokens, part) for total, part in zip(self.totals, parts, strict=True)]


@dataclass(frozen=True, slots=True)
class Scan:
    """The training side's token ids (tokens,), to be looked through."""

    ids: NDArray[np.int32]
    vocab: CanonicalVocab
    spec: HashSpec

    def of_ngrams(self, ngrams: Sequence[tuple[int, ...]], most: int) -> list[Places]:
        """Where each n-gram of canonical ids, the last one's own token last, is read: up to `most` positions of its last token.

        An n-gram that begins with pads stands where the look-back is blocked, too.
        """
        found = Sampler(len(ngrams), most)
        for first, last in self._pieces():
            before = max(0, first - self.spec.max_order + 1)
            canonical = self.vocab.mapping[self.ids[before:last]]
            for number, ngram in enumerate(ngrams):
                found.add(number, before + _ends(canonical, first - before, ngram, self.spec))
        return found.places(self._tokens)

    def of_rows(self, rows: Sequence[tuple[int, int]], most: int) -> list[Places]:
        """Where each of some rows, as (layer, row), is read: up to `most` positions each."""
        found, hasher = Sampler(len(rows), most), Hasher(self.spec)
        wanted = _by_column(rows, self.spec)
        for first, last in self._pieces():
            before = max(0, first - self.spec.max_order + 1)
            history = hasher.advance(self.vocab.canonical(self.ids[None, before:first]))
            canonical = self.vocab.canonical(self.ids[None, first:last])
            for layer, columns in wanted.items():
                read = hasher.rows(layer, canonical, history)[0]  # (P, columns)
                for column, those in columns.items():
                    for number, positions in those.in_piece(read[:, column]):
                        found.add(number, first + positions)
        return found.places(self._tokens)

    @property
    def _numbers(self) -> NDArray[np.int64]:
        """Of the pieces that are read, ascending."""
        return sample(-(-len(self.ids) // PIECE_TOKENS), SCANNED_TOKENS // PIECE_TOKENS)

    @property
    def _tokens(self) -> int:
        return sum(last - first for first, last in self._pieces())

    def _pieces(self) -> Iterator[tuple[int, int]]:
        for first in (self._numbers * PIECE_TOKENS).tolist():
            yield first, min(first + PIECE_TOKENS, len(self.ids))


def _ends(canonical: NDArray[np.int32], first: int, ngram: tuple[int, ...], spec: HashSpec) -> Ids:
    """The positions from `first` on that read an n-gram, by the rule of `hashing/reference.py`; none is dead in a text."""
    places = first + np.flatnonzero(canonical[first:] == ngram[-1])
    blocked = np.zeros(len(places), bool)
    for distance, slot in enumerate(ngram[-2::-1], 1):
        before = canonical[np.maximum(places - distance, 0)]
        blocked |= places < distance
        if spec.boundary_id is not None:
            blocked |= before == spec.boundary_id
        fits = np.where(blocked, spec.pad_id, before) == slot
        places, blocked = places[fits], blocked[fits]
    return places


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Rows of one column, ascending, with the number of each among all that are looked for."""

    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]

    def in_piece(self, read: NDArray[np.int64]) -> Iterator[tuple[int, Ids]]:
        """The number of each row that is read, with the positions, given what each position of a piece reads (P,)."""
        passes = np.zeros(FILTER, bool)
        passes[self.rows % FILTER] = True
        positions = np.flatnonzero(passes[read & (FILTER - 1)])
        place = np.minimum(np.searchsorted(self.rows, read[positions]), len(self.rows) - 1)
        same = self.rows[place] == read[positions]
        place, positions = place[same], positions[same]
        order = np.argsort(place, kind="stable")
        for which in np.unique(place).tolist():
            begin, end = np.searchsorted(place[order], [which, which + 1])
            yield int(self.numbers[which]), positions[order[begin:end]]


def _by_column(rows: Sequence[tuple[int, int]], spec: HashSpec) -> dict[int, dict[int, _Wanted]]:
    """Layer → column → the rows that are looked for there; a row is listed once. Rows are within their table."""
    grouped: dict[int, dict[int, list[tuple[int, int]]]] = {}
    for number, (layer, row) in enumerate(rows):
        column = int(np.searchsorted(spec.offsets(layer), row, side="right")) - 1
        grouped.setdefault(layer, {}).setdefault(column, []).append((row, number))
    return {
        layer: {column: _Wanted(*np.array(sorted(pairs), np.int64).T) for column, pairs in columns.items()}
        for layer, columns in grouped.items()
    }
