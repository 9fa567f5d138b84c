"""Token classes: what kind of text a token stands for, and where in a word it stands.

A token's kind is that of the first character of its text that is no white space: a letter, a mark or a low line is of a word, a
digit of a number, and what is left is punctuation. A word's token is *inside* the word where its text begins without white
space and the text before it ends in a letter, a mark, a digit or a low line; otherwise it starts one. So `name` starts a word
after `self.` and is inside one after `_file`. Each token is of exactly one class.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hashing.vocab import CanonicalVocab

CLASSES = ("word start", "inside a word", "number", "punctuation", "white space", "other")
START, INSIDE, NUMBER, PUNCTUATION, SPACE, OTHER = range(len(CLASSES))
POSITIONS = ("first token", "second token", "third token", "fourth and later", "not of a word")
SPACE_MARK = "▁"  # in SentencePiece's names of tokens
FRAGMENT = "�"  # what a piece of a character decodes to


@dataclass(frozen=True, slots=True)
class TokenClasses:
    """Classes of a vocabulary's tokens. `other` are special tokens, tokens without text and pieces of characters."""

    texts: Sequence[str]  # of each token id
    special: frozenset[int | None] = frozenset()
    _kinds: NDArray[np.int64] = field(init=False)  # of each token id, START for every token of a word
    _joins: NDArray[np.bool_] = field(init=False)  # whether it goes on with a word that the text before it ends in
    _ends_in_word: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        kinds = [OTHER if number in self.special else _kind(text) for number, text in enumerate(self.texts)]
        object.__setattr__(self, "_kinds", np.array(kinds))
        joins = [kind == START and not text[0].isspace() for kind, text in zip(kinds, self.texts, strict=True)]
        object.__setattr__(self, "_joins", np.array(joins, bool))
        ends = [kind != OTHER and _is_word(text[-1]) for kind, text in zip(kinds, self.texts, strict=True)]
        object.__setattr__(self, "_ends_in_word", np.array(ends, bool))

    @classmethod
    def of_vocab(cls, vocab: CanonicalVocab) -> "TokenClasses":
        """Decoded alone, a SentencePiece token loses the space that its name begins with; here it has it."""
        texts = [
            f" {text}" if name.startswith(SPACE_MARK) else text for name, text in zip(vocab.tokens, vocab.texts, strict=True)
        ]
        return cls(texts, frozenset({vocab.eos_token_id, vocab.pad_token_id} - {None}))

    def of(self, token_ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """(B, T) The class of each token of sequences, as an index into CLASSES; before a sequence stands no word."""
        classes: NDArray[np.int64] = self._kinds[token_ids].copy()
        inside = self._joins[token_ids]
        inside[:, 1:] &= self._ends_in_word[token_ids[:, :-1]]
        inside[:, 0] = False
        classes[inside] = INSIDE
        return classes


def positions_in_words(classes: NDArray[np.integer]) -> NDArray[np.int64]:
    """(B, T) An index into POSITIONS for each token, given its class.

    A word that goes on from a number, as the `x` of `0x`, counts from the number.
    """
    places = np.broadcast_to(np.arange(classes.shape[1]), classes.shape)
    last_start = np.maximum.accumulate(np.where(classes == INSIDE, 0, places), axis=1)
    positions = np.minimum(places - last_start, len(POSITIONS) - 2)
    places_in_words: NDArray[np.int64] = np.where(np.isin(classes, (START, INSIDE)), positions, len(POSITIONS) - 1)
    return places_in_words


def _kind(text: str) -> int:
    visible = text.strip()
    if not text or FRAGMENT in text:
        return OTHER
    if not visible:
        return SPACE
    if unicodedata.category(visible[0]).startswith("N"):
        return NUMBER
    return START if _is_word(visible[0]) else PUNCTUATION


def _is_word(character: str) -> bool:
    """Whether a character is of a word or a number, so that a letter after it goes on with the same word."""
    return character == "_" or unicodedata.category(character)[0] in "LMN"
