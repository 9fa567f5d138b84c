"""How fast rows are computed here, beside numpy's forms of the rule and beside the speed of memory.

With few tokens a call is the cost; with more than the caches hold rows for, memory is. The ways take turns, a few calls in a
row each, and the median of the rounds counts. Those that are given memory share it, and use it again for every layer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from engram_cli.bench.numpy_rows import NumpyRows
from engram_cli.bench.timing import time_in_turn
from hashing.base.cores import CORES
from hashing.hasher import TASK_POSITIONS, Hasher
from hashing.spec import HashSpec

SEQUENCE = 4096  # tokens
ROUNDS = 9
LEAST_CALLS, TOKENS_A_ROUND = 4, 100

NUMPY_WAYS = {
    "numpy_head": "numpy, a remainder a head",
    "numpy_order": "numpy, a remainder an order",
    "numpy_quotient": "numpy, a quotient a head",
}
WAYS = {
    "given": "compiled, given memory",
    "fresh": "compiled, new memory",
    "layers": "compiled, all layers a call",
    "narrow": "compiled, int32 rows",
    **NUMPY_WAYS,
    "fill": "(filling memory)",
}


@dataclass(frozen=True, slots=True)
class HashSpeed:
    """Seconds for the rows of `tokens` tokens in all layers of a spec, for each of `WAYS`."""

    spec: HashSpec
    tokens: int
    seconds: Mapping[str, float]

    def threads(self, way: str) -> int:
        shared_out = self.tokens > TASK_POSITIONS and way in {"given", "fresh", "layers", "narrow"}
        return CORES if shared_out else 1

    def layer_microsec(self, way: str) -> float:
        return self.seconds[way] * 1e6 / len(self.spec.layers)

    def row_nanosec(self, way: str) -> float:
        """Time for one row number."""
        return self.layer_microsec(way) * 1e3 / self.tokens / self.spec.columns

    def written_gigabytes_per_sec(self, way: str) -> float:
        return (4 if way == "narrow" else 8) / self.row_nanosec(way)

    def times(self, way: str) -> float:
        """How often the compiled way into given memory is done in the time of another."""
        return self.seconds[way] / self.seconds["given"]


def measure(spec: HashSpec, sizes: Sequence[int], rounds: int = ROUNDS) -> list[HashSpeed]:
    """Times random ids of each size, in sequences of at most SEQUENCE tokens; a size is rounded up to whole sequences."""
    return [_measured(spec, size, rounds) for size in sizes]


def _measured(spec: HashSpec, tokens: int, rounds: int) -> HashSpeed:
    length = min(tokens, SEQUENCE)
    ids = np.random.default_rng(0).integers(0, spec.canonical_size, (-(-tokens // length), length))
    hasher, layers = Hasher(spec), spec.layers
    wide = np.zeros((*ids.shape, spec.columns), np.int64)
    narrow = np.zeros(wide.shape, np.int32)
    peers = [NumpyRows(spec, layer, wide) for layer in layers]
    ways: dict[str, Callable[[], object]] = {
        "given": lambda: [hasher.rows(layer, ids, out=wide) for layer in layers],
        "fresh": lambda: [hasher.rows(layer, ids) for layer in layers],
        "layers": lambda: hasher.rows_by_layer(ids),
        "narrow": lambda: [hasher.rows(layer, ids, out=narrow) for layer in layers],
        "numpy_head": lambda: [peer.by_head(ids) for peer in peers],
        "numpy_order": lambda: [peer.by_order(ids) for peer in peers],
        "numpy_quotient": lambda: [peer.by_quotient(ids) for peer in peers],
        "fill": lambda: _fill(wide, len(layers)),
    }
    seconds = time_in_turn(ways, rounds, max(LEAST_CALLS, TOKENS_A_ROUND // tokens))
    return HashSpeed(spec, ids.size, {way: median(times) for way, times in seconds.items()})


def _fill(array: NDArray[np.int64], times: int) -> None:
    for _ in range(times):
        array.fill(1)
