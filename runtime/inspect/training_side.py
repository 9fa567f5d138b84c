"""The training side of a run's corpus as tokens to count in: one pass or two over the mapped stream answer for a phrase."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hashing.vocab import CanonicalVocab
from runtime.run import Run
from runtime.tokens import Tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Longer:
    """A longer token that usually stands where the phrase's last one does."""

    token: str  # its text, which begins with that of the last token
    count: int  # times in the training side, after the tokens before


@dataclass(frozen=True, slots=True)
class Inside:
    """The phrase as it is tokenised after a space, where that is more frequent than the phrase as it was given."""

    tokens: list[str]  # their texts
    count: int  # times in the training side, of the last tokens: as many as the longest n-gram has


@dataclass(frozen=True)
class TrainingSide:
    """The text that a run was trained on, as tokens to count in.

    Without slots, so that canonical ids are there from the first count on.
    """

    vocab: CanonicalVocab
    token_ids: NDArray[np.int32]  # (tokens,) mapped

    @classmethod
    def of(cls, run: Run, vocab: CanonicalVocab) -> "TrainingSide | None":
        """None for a run that keeps no text: its tables were imported."""
        if not run.train_folder.exists():
            return None
        token_ids = Tokens.open(run.train_folder / "tokens").ids("train")
        return cls(vocab, token_ids)

    @cached_property
    def canonical_ids(self) -> NDArray[np.int32]:
        """(tokens,)"""
        return self.vocab.mapping[self.token_ids]

    def following(self, ngram: list[int]) -> NDArray[np.int64]:
        """The places right after every occurrence of an n-gram of canonical ids; the last may be the stream's end."""
        stream = self.canonical_ids
        places = np.flatnonzero(stream[: max(0, len(stream) - len(ngram) + 1)] == ngram[0])
        for distance, canonical_id in enumerate(ngram[1:], 1):
            places = places[stream[places + distance] == canonical_id]
        return places + len(ngram)

    def longer(self, before: list[int], last: int, own: int) -> Longer | None:
        """The longer token that stands after `before` more often than the `own` times of the token `last`, if one does."""
        places = self.following(before)
        counts = np.bincount(self.token_ids[places[places < len(self.token_ids)]])
        text = self.vocab.texts[last]
        tokens = [i for i in np.flatnonzero(counts > own).tolist() if self.vocab.texts[i].startswith(text) and i != last]
        found = max(tokens, key=lambda i: int(counts[i]), default=None)
        return None if found is None else Longer(self.vocab.texts[found], int(counts[found]))

    def inside(self, tokenizer: "Tokenizer", text: str, canonical: list[int], longest: int) -> Inside | None:
        """How the text is tokenised after a space, where that gives other ids, and more frequent ones."""
        ids = tokenizer.encode(" " + text, add_special_tokens=False).ids
        found = [self.vocab.canonical_of(i) for i in ids]
        if found[-len(canonical) :] == canonical:
            return None
        own, count = (len(self.following(ngram[-longest:])) for ngram in (canonical, found))
        return Inside([self.vocab.texts[i] for i in ids], count) if count > own else None
