"""Windows: the pieces of text that a model is judged on, and which tokens of each count.

A corpus's validation side is cut into windows of one length that follow each other through its documents, as in training, and a
fair sample of them is taken: those whose numbers have the least hashes. That is the same sample whenever it is taken, every
window is as likely as any other to be in it, and a smaller sample is part of every larger one.

A text of the user's own is judged whole, each token once. Its first token is predicted from an end-of-text token, as at the
start of a document. Windows overlap by half: a token sees at least half a window of what comes before it, where there is so
much.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.tokens import Tokens

TOKENS_AT_ONCE = 2048  # that a model is given: enough for full use of a processor, few enough for any vocabulary
SAMPLE_KEY = 0x656E6772616D  # "engram"
CONTEXT = -1  # in place of a document's number: a token that is not judged here


@dataclass(frozen=True, slots=True)
class Block:
    """Windows of one length that a model is given together."""

    inputs: NDArray[np.int64]  # (B, T)
    targets: NDArray[np.int64]  # (B, T) the token after each input
    documents: NDArray[np.int64]  # (B, T) number of the document that each target is of, or CONTEXT


@dataclass(frozen=True, slots=True)
class Side:
    """A fair sample of the validation side, of up to `budget_tokens` tokens but at least one window.

    Where a run does not know where its documents end, each window stands for a document.
    """

    tokens: Tokens
    length: int  # tokens of a window
    budget_tokens: int

    @property
    def windows(self) -> int:
        """Of the whole side; what is left over at its end is not judged. A side shorter than a window is one."""
        return max(1, (self.tokens.counts["validation"] - 1) // self.length)

    @property
    def documents(self) -> int:
        """More than any document's number."""
        return self.tokens.documents["validation"] if self.tokens.documents else self.windows

    @property
    def blocks(self) -> int:
        return -(-min(self.windows, self._wanted) // self._at_once)

    @property
    def _wanted(self) -> int:
        return max(1, self.budget_tokens // self.length)

    @property
    def _at_once(self) -> int:
        return max(1, TOKENS_AT_ONCE // self.length)

    def __iter__(self) -> Iterator[Block]:
        ids, ends = self.tokens.ids("validation"), self.tokens.document_ends("validation")
        chosen = sample(self.windows, self._wanted)
        inside = np.arange(min(self.length, len(ids) - 1))
        for first in range(0, len(chosen), self._at_once):
            numbers = chosen[first : first + self._at_once, None]
            positions = numbers * self.length + inside  # (B, T)
            targets = positions + 1
            documents = np.broadcast_to(numbers, positions.shape) if ends is None else np.searchsorted(ends, targets, "right")
            yield Block(ids[positions].astype(np.int64), ids[targets].astype(np.int64), documents)


def sample(windows: int, count: int, key: int = SAMPLE_KEY) -> NDArray[np.int64]:
    """(at most `count`,) Numbers below `windows`, ascending: those with the least hashes."""
    if count >= windows:
        return np.arange(windows)
    return np.sort(np.argpartition(hashes(np.arange(windows), key), count)[:count])


def hashes(numbers: NDArray[np.int64], key: int = SAMPLE_KEY) -> NDArray[np.uint64]:
    """Of each number its value in the splitmix64 sequence that starts from a key, where no two are the same."""
    gamma = np.uint64(0x9E3779B97F4A7C15)
    z = np.uint64(key) + (numbers.astype(np.uint64) + np.uint64(1)) * gamma
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts as token ids, each a document of its own; none is empty."""

    texts: Sequence[Sequence[int]]
    length: int  # tokens of a window
    end_id: int

    @property
    def documents(self) -> int:
        return len(self.texts)

    @property
    def blocks(self) -> int:
        return sum(-(-len(_starts(len(text), self.length)) // self._at_once) for text in self.texts)

    @property
    def _at_once(self) -> int:
        return max(1, TOKENS_AT_ONCE // self.length)

    def __iter__(self) -> Iterator[Block]:
        """Judged tokens come in the order of the texts."""
        for number, text in enumerate(self.texts):
            ids, starts = np.array([self.end_id, *text], np.int64), _starts(len(text), self.length)
            for first in range(0, len(starts), self._at_once):
                yield self._block(number, ids, starts, range(first, min(first + self._at_once, len(starts))))

    def _block(self, number: int, ids: NDArray[np.int64], starts: Sequence[int], which: range) -> Block:
        length = min(self.length, len(ids) - 1)
        positions = np.array([starts[i] for i in which])[:, None] + np.arange(length)
        judged_before = np.array([starts[i - 1] + length if i else 0 for i in which])[:, None]
        documents = np.where(positions >= judged_before, number, CONTEXT)
        return Block(ids[positions], ids[positions + 1], documents)


def _starts(tokens: int, length: int) -> Sequence[int]:
    """Where windows begin that cover a text and overlap by half; the last ends where the text does."""
    last = max(0, tokens - length)
    return [*range(0, last, max(1, length // 2)), last]
