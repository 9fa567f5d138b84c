"""How fast n-grams are counted here, against numpy's `unique` on the same ids.

Numpy counts n-grams packed into one 64-bit word, or as two columns where they do not fit; it counts no documents. Best of
several rounds in which both take turns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hashing.ngrams.counter import Buffer
from hashing.ngrams.counts import Packing
from hashing.rule import IDENTITY
from hashing.vocab import CanonicalVocab

ROUNDS = 8
DOCUMENT_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class CountSpeed:
    """Seconds to count some orders of a stream of tokens that fits in memory."""

    orders: tuple[int, ...]
    tokens: int
    distinct: int
    numpy_sec: float
    compiled_sec: float

    @property
    def times_numpy(self) -> float:
        return self.numpy_sec / self.compiled_sec


def skewed_ids(tokens: int, size: int) -> NDArray[np.int64]:
    """(tokens,) As skewed as words of a text."""
    return np.random.default_rng(0).zipf(1.3, tokens) % size


def numpy_counts(ids: NDArray[np.int64], order: int, bits: int) -> int:
    """How many distinct n-grams there are, by counting them with numpy."""
    length = len(ids) - order + 1
    places = [ids[order - 1 - d : order - 1 - d + length] for d in range(order)]
    in_first = min(order, 63 // bits)
    words = [np.zeros(length, np.int64) for _ in range(1 if order == in_first else 2)]
    for distance, place in enumerate(places):
        words[distance // in_first] |= place << (bits * (distance % in_first))
    if len(words) == 1:
        return len(np.unique(words[0], return_counts=True)[0])
    return len(np.unique(np.stack(words, axis=1), axis=0, return_counts=True)[0])


def measure(ids: NDArray[np.int64], size: int, orders: tuple[int, ...], rounds: int = ROUNDS) -> CountSpeed:
    """Of canonical ids below `size`; one document's end is every `DOCUMENT_TOKENS`."""
    names = ("",) * size
    vocab = CanonicalVocab(names, names, np.arange(size, dtype=np.int32), names, IDENTITY.name)
    packing = Packing(orders[-1], size)
    buffer = Buffer(len(ids) + len(ids) // DOCUMENT_TOKENS + 64, packing)
    found: list[int] = []

    def compiled() -> None:
        buffer.clear()
        for first in range(0, len(ids), DOCUMENT_TOKENS):
            buffer.append(ids[first : first + DOCUMENT_TOKENS], vocab, begins=True)
        found[:] = [len(run.fields[0]) for _, run in buffer.runs(orders)]

    def by_numpy() -> None:
        for order in orders:
            numpy_counts(ids, order, packing.bits)

    seconds: dict[Callable[[], None], list[float]] = {compiled: [], by_numpy: []}
    for _ in range(rounds):
        for way, times in seconds.items():
            start = perf_counter()
            way()
            times.append(perf_counter() - start)
    return CountSpeed(orders, len(ids), sum(found), min(seconds[by_numpy]), min(seconds[compiled]))
