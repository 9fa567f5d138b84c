"""How fast rows are computed here, against the plain numpy form of the rule and against the speed of memory.

Round after round all ways take turns, each called a few times in a row so that its memory is in the caches if it fits there,
and the best call of each counts: what other programs do to the machine meanwhile then falls on all of them alike. With more
tokens than the caches hold rows for, the speed of memory is what is measured.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hashing.hasher import Hasher
from hashing.spec import HashSpec

ROUNDS = 7
CALLS = 4  # in a row


LABELS = {
    "numpy": "numpy",
    "fresh": "compiled, new memory",
    "reused": "compiled, given memory",
    "narrow": "compiled, int32 rows",
    "fill": "(filling memory)",
}


@dataclass(frozen=True, slots=True)
class HashSpeed:
    """Seconds for the rows of `tokens` tokens in all layers of a spec, one way of the `LABELS` each."""

    spec: HashSpec
    tokens: int
    threads: int
    seconds: Mapping[str, float]

    @property
    def columns(self) -> int:
        """Of all layers."""
        return self.spec.columns * len(self.spec.layers)

    def tokens_per_sec(self, way: str) -> float:
        return self.tokens / self.seconds[way]

    def times_numpy(self, way: str) -> float:
        return self.seconds["numpy"] / self.seconds[way]

    def column_nanosec(self, way: str) -> float:
        """Time for one row number."""
        return self.seconds[way] * 1e9 / self.tokens / self.columns

    def written_bytes_per_sec(self, way: str) -> float:
        return self.tokens * self.columns * (4 if way == "narrow" else 8) / self.seconds[way]


def numpy_rows(spec: HashSpec, layer: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """(B, T, columns) The rule for whole sequences without boundaries, as it is published: one array operation per head."""
    place = spec.layer_index(layer)
    multipliers = spec.multipliers[place]
    length = ids.shape[1]
    shifted = [np.pad(ids, ((0, 0), (d, 0)), constant_values=spec.pad_id)[:, :length] for d in range(spec.max_order)]
    columns = []
    first = 0
    mix = shifted[0] * multipliers[0]
    for order, heads in zip(spec.orders, spec.primes[place], strict=True):
        mix = np.bitwise_xor(mix, shifted[order - 1] * multipliers[order - 1])
        for prime in heads:
            columns.append(mix % prime + first)
            first += prime
    return np.stack(columns, axis=2)


def measure(spec: HashSpec, tokens: int, sequence: int = 4096, rounds: int = ROUNDS) -> HashSpeed:
    """Times random ids in sequences of `sequence` tokens, at least `tokens` of them."""
    ids = np.random.default_rng(0).integers(0, spec.canonical_size, (-(-tokens // sequence), sequence))
    hasher = Hasher(spec)
    wide = np.zeros((*ids.shape, spec.columns), np.int64)  # used again for every layer
    narrow = np.zeros(wide.shape, np.int32)
    ways: dict[str, Callable[[], object]] = {
        "numpy": lambda: [numpy_rows(spec, layer, ids) for layer in spec.layers],
        "fresh": lambda: [hasher.rows(layer, ids) for layer in spec.layers],
        "reused": lambda: [hasher.rows(layer, ids, out=wide) for layer in spec.layers],
        "narrow": lambda: [hasher.rows(layer, ids, out=narrow) for layer in spec.layers],
        "fill": lambda: _fill(wide, len(spec.layers)),
    }
    best = {name: min(seconds) for name, seconds in _rounds(ways, rounds).items()}
    return HashSpeed(spec, ids.size, os.cpu_count() or 1, best)


def _fill(array: NDArray[np.int64], times: int) -> None:
    for _ in range(times):
        array.fill(1)


def _rounds(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every way's calls, round after round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            for _ in range(CALLS):
                start = perf_counter()
                way()
                seconds[name].append(perf_counter() - start)
    return seconds
