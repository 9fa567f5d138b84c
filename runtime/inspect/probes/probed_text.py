"""The text that a probe looks at: a fair sample of the run's validation side, or files of the user's own.

A probe judges *positions*: at each the memory has read the n-grams that end there, and the model predicts the token after it.
Tokens of user's files are taken document by document, in an order drawn from a seed, until there are as many as asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashing.text.corpus import Corpus
from hashing.vocab import CanonicalVocab
from runtime.inspect.probes.token_classes import TokenClasses, positions_in_words
from runtime.judged_text import JudgedText, texts_of
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun
from runtime.windows import CONTEXT, Side, Texts

PROBED_TOKENS = 1 << 14
SEED = 0
BEFORE = -1  # in place of a canonical id: what lies before a window or a document


@dataclass(frozen=True, slots=True)
class Positions:
    """The judged positions of a text, P of them, in the order of its windows."""

    documents: NDArray[np.int64]  # (P,) the number of the document that the predicted token is of
    ngrams: NDArray[np.int64]  # (P, n) canonical ids that end at the position, BEFORE where they reach beyond the text
    read_classes: NDArray[np.int64]  # (P,) class of the token at the position, as an index into CLASSES
    predicted_classes: NDArray[np.int64]  # (P,) class of the token after it
    predicted_places: NDArray[np.int64]  # (P,) where in a word that one stands, as an index into POSITIONS

    @classmethod
    def of(cls, windows: Side | Texts, vocab: CanonicalVocab, order: int) -> "Positions":
        """`order` is n. Classes need the token before, so a word that a window cuts counts from the window's start."""
        classes, pieces = TokenClasses.of_vocab(vocab), []
        end = vocab.canonical_of(vocab.end_of_text_id)
        for block in windows:
            judged = block.documents != CONTEXT
            found = classes.of(np.concatenate([block.inputs[:, :1], block.targets], 1))
            places = positions_in_words(found)
            ngrams = ending_ngrams(vocab.canonical(block.inputs), order, end)
            columns = block.documents, ngrams, found[:, :-1], found[:, 1:], places[:, 1:]
            pieces.append([column[judged] for column in columns])
        return cls(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def ending_ngrams(canonical_ids: NDArray[np.int64], order: int, end_id: int) -> NDArray[np.int64]:
    """(B, T, order) The n-gram that ends at each of the canonical ids (B, T), in reading order.

    What lies before the sequence is BEFORE, and so is an end of text and all before it, unless the n-gram ends with it.
    """
    batch, length = canonical_ids.shape
    padded = np.concatenate([np.full((batch, order - 1), BEFORE, np.int64), canonical_ids], 1)
    ngrams = np.stack([padded[:, back : back + length] for back in range(order)], -1)
    blocked = ngrams == BEFORE
    blocked[..., :-1] |= ngrams[..., :-1] == end_id
    blocked = np.logical_or.accumulate(blocked[..., ::-1], -1)[..., ::-1]
    return np.where(blocked, BEFORE, ngrams)


def probed_text(run: Run, trained: TrainedRun, corpus: Sequence[Path], budget_tokens: int = PROBED_TOKENS) -> Side | Texts:
    """Windows of the training's length over files and folders, or where none are named over the validation side.

    Raises EngramError for files without text.
    """
    length = trained.config.recipe.length
    if not corpus:
        return Side(Tokens.open(run.train_folder / "tokens"), length, budget_tokens)
    found = texts_of(Corpus(tuple(corpus)))
    texts = [JudgedText.encode(name, text, trained.tokenizer).token_ids for name, text in found]
    return Texts(up_to(texts, budget_tokens), length, trained.vocab.end_of_text_id)


def up_to(texts: Sequence[Sequence[int]], budget_tokens: int) -> list[Sequence[int]]:
    """Texts in an order that was drawn, the last one cut where the budget ends."""
    taken: list[Sequence[int]] = []
    left = budget_tokens
    for number in np.random.default_rng(SEED).permutation(len(texts)).tolist():
        if left <= 0:
            break
        taken.append(texts[number][:left])
        left -= len(taken[-1])
    return taken
