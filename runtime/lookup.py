"""Lookup: the one way from token ids to the memory's vectors.

    token ids ─► canonical ids ─► rows of every layer's table ─► vectors, from wherever a placement keeps the rows

A sequence that arrives in pieces carries a *history* from one piece to the next: the canonical ids that the n-grams at the
beginning of the next piece reach back to.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hashing.hasher import Hasher
from hashing.spec import HashSpec
from hashing.vocab import CanonicalVocab
from runtime.vectors import LayerRows, Vectors

if TYPE_CHECKING:
    from runtime.placement.placement import Placement

TokenIds = NDArray[np.int64]  # (B, T)
History = NDArray[np.int64]  # (B, max_order - 1) canonical ids


@dataclass(frozen=True, slots=True)
class Addresses:
    """The canonical ids and rows of a piece of text."""

    canonical_ids: NDArray[np.int64]  # (B, T)
    rows: LayerRows
    history: History  # for the piece that follows


@dataclass(frozen=True, slots=True)
class Addressing:
    """Finds the rows of token ids. Raises EngramError for a token id beyond the vocabulary."""

    vocab: CanonicalVocab
    spec: HashSpec
    hasher: Hasher = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hasher", Hasher(self.spec))

    def addresses(self, token_ids: TokenIds, history: History | None = None) -> Addresses:
        """Rows of token ids (B, T); `history` is that of the piece before, None at the start of sequences."""
        canonical = self.vocab.canonical(token_ids)
        rows = self.hasher.rows_by_layer(canonical, history)
        return Addresses(canonical, rows, self.hasher.advance(canonical, history))


@dataclass(frozen=True, slots=True)
class Lookup:
    """Finds the vectors of token ids: addressing, and a placement that has the rows."""

    addressing: Addressing
    placement: "Placement"

    def vectors(self, token_ids: TokenIds) -> Vectors:
        """Asks for the vectors of whole sequences (B, T)."""
        return self.placement.fetch(self.addressing.addresses(token_ids).rows)

    def following(self, token_ids: TokenIds, history: History | None) -> tuple[Vectors, History]:
        """Asks for the vectors of a piece (B, T); gives them with the history for the piece after it."""
        found = self.addressing.addresses(token_ids, history)
        return self.placement.fetch(found.rows), found.history
