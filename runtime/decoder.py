"""Decoder: sequences that grow piece by piece, pieces of any of them computed together.

Rows of all pieces are one batch for everything that works row by row; attention, the memory and products compute each row by
itself. On a CPU a row's bits are the same beside any other rows as long as their number is one that `filled_rows` gives. So
what a sequence gives does not depend on who is computed with it, nor on how it was cut into pieces.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from runtime.lookup import Addressing, Lookup
from runtime.model.filled_rows import filled_rows
from runtime.model.helper import HELPER
from runtime.model.language_model import LanguageModel
from runtime.model.pages import PAGE, Batch, Pages
from runtime.model.row_product import row_by_row
from runtime.page_pool import PagePool
from runtime.vectors import LayerRows, Vectors


@dataclass(slots=True, eq=False, weakref_slot=True)
class Decoded:
    """A sequence so far."""

    token_ids: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    history: NDArray[np.int64] | None = None  # (max_order - 1,) for its next piece; None at the start, and without a lookup

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.token_ids)


Piece = tuple[Decoded, Sequence[int]]
"""A sequence, and the token ids that follow it."""

Watch = Callable[[Sequence[Piece], LayerRows, Vectors], None]
"""Sees the rows and vectors (1, N, …) of the pieces of every step, before the model does."""


class Decoder:
    """With no lookup the memory is suppressed, or the model has none. Pages are made as they are needed, up to `most_pages`."""

    shares_pages = True  # whether sequences that begin alike can share what was computed

    def __init__(self, model: LanguageModel, lookup: Lookup | None, most_pages: int = sys.maxsize) -> None:
        self.model, self.lookup, self.most_pages = model, lookup, most_pages
        self.pages, self.pool = Pages(model.config, model.device), PagePool()
        self.watch: Watch | None = None
        self._last: tuple[list[Decoded], Batch] | None = None  # the step before, where each sequence went on by one token

    @torch.inference_mode()
    def logits(self, pieces: Sequence[Piece]) -> Tensor:
        """(pieces, vocabulary) Logits after the last token of each piece, none of which is empty."""
        ends = np.cumsum([len(ids) for _, ids in pieces]) - 1
        return self.head(self.hidden(pieces)[torch.from_numpy(ends).to(self.model.device)])

    @torch.inference_mode()
    def head(self, hidden: Tensor) -> Tensor:
        """(N, vocabulary) Logits of hidden states (N, D)."""
        rows = hidden.shape[0]
        missing = filled_rows(rows, self.model.config) - rows
        filled = functional.pad(hidden, (0, 0, 0, missing)) if missing else hidden
        with row_by_row(), HELPER.helping(rows):
            return self.model.head(filled)[:rows]  # type: ignore[no-any-return]

    @torch.inference_mode()
    def hidden(self, pieces: Sequence[Piece]) -> Tensor:
        """(rows, D) Hidden states after every token of the pieces, one piece after another."""
        token_ids = [token for _, ids in pieces for token in ids]
        rows, filled = len(token_ids), filled_rows(len(token_ids), self.model.config)
        token_ids += [0] * (filled - rows)
        vectors = self._vectors(pieces, filled) if self.lookup else None
        batch = self._batch(pieces, filled)
        with row_by_row(), HELPER.helping(len(pieces)):
            found: Tensor = self.model(torch.tensor([token_ids], device=self.model.device), vectors, batch)
        for sequence, ids in pieces:
            sequence.token_ids += ids
        self._last = ([sequence for sequence, _ in pieces], batch) if _by_one(pieces) else None
        return found[0, :rows]

    def reserve(self, pieces: Iterable[Piece]) -> None:
        """Takes the pages that the pieces' tokens go to."""
        after = [(sequence, sequence.length + len(ids)) for sequence, ids in pieces]
        needed = [(seq, pages_for(length) - len(seq.pages)) for seq, length in after if length > PAGE * len(seq.pages)]
        if needed and (missing := sum(count for _, count in needed) - self.pool.free) > 0:
            self._grow(min(max(2 * len(self.pool), len(self.pool) + missing), self.most_pages))
        for sequence, count in needed:
            sequence.pages += [self.pool.take() for _ in range(count)]

    def make_pages(self) -> None:
        """All that there may be, so that no more memory is taken for them later."""
        self._grow(self.most_pages)

    def _grow(self, pages: int) -> None:
        self.pool.grow(pages)
        self.pages.grow(pages)

    def release(self, sequence: Decoded) -> None:
        """Gives the sequence's pages back; it is not to be gone on with."""
        self.pool.release(sequence.pages)
        sequence.pages = []

    def forked(self, sequence: Decoded, times: int) -> list[Decoded]:
        """Sequences that go on from where the given one is, each on its own; full pages are shared."""
        full = sequence.length // PAGE
        forks = [Decoded(list(sequence.token_ids), sequence.pages[:full], sequence.history) for _ in range(times)]
        for fork in forks:
            self.pool.share(fork.pages)
        if full < len(sequence.pages):
            self.reserve((fork, ()) for fork in forks)
            self.pages.copy([sequence.pages[-1]] * times, [fork.pages[-1] for fork in forks])
        return forks

    def resumed(self, token_ids: Sequence[int], pages: list[int]) -> Decoded:
        """A sequence of which full pages, its own from now on, hold the first of the token ids."""
        sequence = Decoded(list(token_ids[: len(pages) * PAGE]), pages)
        if pages and self.lookup is not None:
            addresses = self.lookup.addressing.addresses(np.array([sequence.token_ids], np.int64))
            sequence.history = addresses.history[0]
        return sequence

    def _batch(self, pieces: Sequence[Piece], filled: int) -> Batch:
        """The rows of the pieces, whose pages are taken. Most steps are the one before, a position on in the same pages."""
        sequences = [sequence for sequence, _ in pieces]
        if self._last is not None and self._last[0] == sequences and _by_one(pieces):
            batch = self._last[1].moved()
            if (batch.positions % PAGE).all():
                return batch
            self.reserve(pieces)  # some begin a page
            return replace(batch, tables=_tables(sequences))
        self.reserve(pieces)
        owners = [owner for owner, (_, ids) in enumerate(pieces) for _ in ids]
        positions = [sequence.length + place for sequence, ids in pieces for place in range(len(ids))]
        missing = filled - len(owners)
        return Batch(self.pages, _tables(sequences), np.array(owners + [0] * missing), np.array(positions + [-1] * missing))

    def _vectors(self, pieces: Sequence[Piece], filled: int) -> Vectors:
        """Asks for the vectors of all pieces; rows that fill the batch up get zeros."""
        assert self.lookup is not None
        rows = self._rows(self.lookup.addressing, pieces)
        vectors = self.lookup.placement.fetch(rows)
        if self.watch is not None:
            self.watch(pieces, rows, vectors)

        def filled_up(layer: int) -> Tensor | None:
            given = vectors(layer)
            missing = 0 if given is None else filled - given.shape[1]
            return functional.pad(given, (0, 0, 0, missing)) if given is not None and missing else given

        return filled_up

    @staticmethod
    def _rows(addressing: Addressing, pieces: Sequence[Piece]) -> LayerRows:
        """Layer → rows (1, N, columns), found for all pieces of one length at a time. Sequences get their new histories."""
        alike, parts = dict[int, list[int]](), list[LayerRows]([{}] * len(pieces))
        for number, (_, ids) in enumerate(pieces):
            alike.setdefault(len(ids), []).append(number)
        for numbers in alike.values():
            sequences = [pieces[number][0] for number in numbers]
            histories = [addressing.hasher.history(1)[0] if each.history is None else each.history for each in sequences]
            token_ids = np.array([pieces[number][1] for number in numbers])
            found = addressing.addresses(token_ids, np.array(histories))
            for sequence, history in zip(sequences, found.history, strict=True):
                sequence.history = history
            if len(alike) == 1:
                return {layer: rows.reshape(1, -1, rows.shape[-1]) for layer, rows in found.rows.items()}
            for place, number in enumerate(numbers):
                parts[number] = {layer: rows[place] for layer, rows in found.rows.items()}
        return {layer: np.concatenate([part[layer] for part in parts])[None] for layer in addressing.spec.layers}


def _by_one(pieces: Sequence[Piece]) -> bool:
    return all(len(ids) == 1 for _, ids in pieces)


def _tables(sequences: Sequence[Decoded]) -> NDArray[np.int64]:
    """(sequences, most pages of any) Their pages; whatever follows a sequence's last one is not read."""
    most = max(len(sequence.pages) for sequence in sequences)
    return np.array([sequence.pages + [0] * (most - len(sequence.pages)) for sequence in sequences])


def pages_for(tokens: int) -> int:
    """How many pages so many tokens of a sequence take."""
    return -(-tokens // PAGE)
