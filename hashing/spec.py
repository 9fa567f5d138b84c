"""HashSpec: everything an address depends on, valid by construction.

From a spec and a sequence of canonical ids the rows follow with no other input; `hashing/reference.py` says how. The numbers
are those of the published models (paper, section 2.2; the demo; DeepSeek-V4.1's inference code; Qwen3.8's PLE initialiser).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from hashing.base.atomic import write_text
from hashing.base.errors import EngramError
from hashing.base.json_object import INT64_MAX, brief, read_json

Seeding = Literal["numpy", "splitmix64"]

NO_VOCAB = "none"  # the fingerprint of no vocabulary
MAX_ORDER = 6
MAX_HEADS = 1024  # per order
MAX_MODULI = 1 << 13  # of all layers together: finding more primes than that takes minutes
MAX_LAYER = 99_999  # a block's number names folders
MAX_SPEC_BYTES = 16 << 20  # ten times what MAX_MODULI primes take in a file
LAYER_STRIDE = 10007  # how far apart the seeds of two layers are
GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def is_prime(n: int) -> bool:
    """Miller-Rabin with the bases that decide every n below 3.3e24."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    if n < 2 or any(n % p == 0 for p in bases):
        return n in bases
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(n, base, odd, twos) for base in bases)


def _passes(n: int, base: int, odd: int, twos: int) -> bool:
    x = pow(base, odd, n)
    if x in (1, n - 1):
        return True
    for _ in range(twos - 1):
        x = x * x % n
        if x == n - 1:
            return True
    return False


def assign_primes(layers: int, orders: int, heads: int, base: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """For each layer, order and head the smallest prime ≥ `base` that no earlier one took.

    Raises EngramError for more than MAX_MODULI.
    """
    _check_count(layers, orders, heads)
    cursor = base - 1

    def following() -> int:
        nonlocal cursor
        cursor += 1
        while not is_prime(cursor):
            cursor += 1
        return cursor

    return tuple(tuple(tuple(following() for _ in range(heads)) for _ in range(orders)) for _ in range(layers))


def _check_count(layers: int, orders: int, heads: int) -> None:
    if (count := layers * orders * heads) > MAX_MODULI:
        raise EngramError(
            f"{layers:,} layers of {orders} orders of {heads} heads need {count:,} primes, expected {MAX_MODULI:,} at most"
        )


def multiplier_bound(canonical_size: int) -> int:
    return max(1, INT64_MAX // canonical_size // 2)


def seeded_multipliers(
    seeding: Seeding, seed: int, layers: tuple[int, ...], count: int, canonical_size: int
) -> tuple[tuple[int, ...], ...]:
    """For each layer, `count` odd multipliers, one per look-back distance, that keep every product below 2**63.

    `numpy` is the demo's and V4.1's rule, which numbers a layer by its block; `splitmix64` is Qwen's, with tables from 0.
    """
    bound = multiplier_bound(canonical_size)

    def draws(number: int) -> list[int]:
        start = seed + LAYER_STRIDE * number
        if seeding == "numpy":
            return [int(r) for r in np.random.default_rng(start).integers(0, bound, size=count, dtype=np.int64)]
        return [_splitmix64(start + GOLDEN_GAMMA * (i + 1)) % bound for i in range(count)]

    numbers = layers if seeding == "numpy" else range(len(layers))
    return tuple(tuple(2 * r + 1 for r in draws(number)) for number in numbers)


def _splitmix64(state: int) -> int:
    mask = 2**64 - 1
    z = (state + GOLDEN_GAMMA) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@dataclass(frozen=True, slots=True)
class HashSpec:
    """How token sequences address the rows of every layer's table.

    A column is one (order, head) pair, orders first; rows are numbered over the whole layer, columns in sequence.
    """

    layers: tuple[int, ...]  # block numbers, from 0
    primes: tuple[tuple[tuple[int, ...], ...], ...]  # [layer][order - 2][head]
    multipliers: tuple[tuple[int, ...], ...]  # [layer][look-back distance]
    pad_id: int  # canonical id that blocked look-backs read
    canonical_size: int
    vocab_fingerprint: str
    boundary_id: int | None = None  # canonical id that look-back never crosses; None: only the start of the sequence blocks
    rows_multiple: int = 1  # a layer's rows are padded up to a multiple of this
    seeding: Seeding | None = None  # with `seed`, the rule the multipliers follow; None: given outright
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check_shape()
        self._check_primes()
        self._check_multipliers()
        for name, value in (("pad id", self.pad_id), ("boundary id", self.boundary_id)):
            if value is not None and not 0 <= value < self.canonical_size:
                raise EngramError(f"{name} {value} is outside the canonical vocabulary of {self.canonical_size}")

    def _check_shape(self) -> None:
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise EngramError(f"layers are {brief(list(self.layers))}, expected block numbers in ascending order")
        if self.layers[-1] > MAX_LAYER:
            raise EngramError(f"layer {brief(self.layers[-1])} is beyond {MAX_LAYER}, the largest block number")
        if len(self.primes) != len(self.layers) or len(self.multipliers) != len(self.layers):
            raise EngramError(
                f"{len(self.layers)} layers, but primes for {len(self.primes)} and multipliers for {len(self.multipliers)}"
            )
        shapes = {(len(layer), *map(len, layer)) for layer in self.primes}
        if len(shapes) != 1 or len(set(next(iter(shapes))[1:])) != 1 or not self.primes[0][0]:
            raise EngramError("primes do not form a block of layers × orders × heads: one is missing or too many")
        _check_count(len(self.layers), len(self.primes[0]), len(self.primes[0][0]))
        if not 2 <= self.max_order <= MAX_ORDER:
            raise EngramError(f"the longest n-gram has {self.max_order} tokens, expected 2 to {MAX_ORDER}")
        for name, value in (("canonical_size", self.canonical_size), ("rows_multiple", self.rows_multiple)):
            if value < 1:
                raise EngramError(f"{name} is {value}, expected at least 1")

    def _check_primes(self) -> None:
        seen: set[int] = set()
        for prime in (p for layer in self.primes for order in layer for p in order):
            if not is_prime(prime):
                raise EngramError(f"modulus {prime} is not a prime")
            if prime in seen:
                raise EngramError(f"modulus {prime} is used twice")
            seen.add(prime)
        for layer in self.layers:
            if self.rows(layer) > INT64_MAX:
                raise EngramError(f"layer {layer} has {self.rows(layer)} rows, more than 64 bits can number")

    def _check_multipliers(self) -> None:
        largest = INT64_MAX // max(1, self.canonical_size - 1)
        for layer, multipliers in zip(self.layers, self.multipliers, strict=True):
            if len(multipliers) != self.max_order:
                raise EngramError(f"layer {layer} has {len(multipliers)} multipliers, expected {self.max_order}")
            for m in multipliers:
                if m < 1 or m % 2 == 0:
                    raise EngramError(f"layer {layer}: multiplier {m} is not an odd number above 0")
                if m > largest:
                    limit = f"1 to {largest} over {self.canonical_size} canonical ids"
                    raise EngramError(f"layer {layer}: multiplier {m} would overflow 64 bits, expected {limit}")
        if (self.seeding is None) != (self.seed is None):
            raise EngramError("seeding and seed come together: one is given without the other")
        if self.seed is not None and self.seed < 0:
            raise EngramError(f"the seed is {self.seed}, expected 0 or more")
        if self.seeding is not None and self.seed is not None:
            expected = seeded_multipliers(self.seeding, self.seed, self.layers, self.max_order, self.canonical_size)
            for layer, found, seeded in zip(self.layers, self.multipliers, expected, strict=True):
                if found == seeded:
                    continue
                raise EngramError(
                    f"layer {layer}: multipliers {found} do not follow from seed {self.seed}, which gives {seeded}",
                    hint="a checkpoint's stored multipliers are the truth: give them without a seed",
                )

    @property
    def max_order(self) -> int:
        return len(self.primes[0]) + 1

    @property
    def orders(self) -> range:
        return range(2, self.max_order + 1)

    @property
    def heads(self) -> int:
        """Heads per order."""
        return len(self.primes[0][0])

    @property
    def columns(self) -> int:
        """Rows read per token and layer."""
        return len(self.orders) * self.heads

    def layer_index(self, layer: int) -> int:
        if layer not in self.layers:
            raise EngramError(f"layer {layer} has no table; those that have: {', '.join(map(str, self.layers))}")
        return self.layers.index(layer)

    def moduli(self, layer: int) -> tuple[int, ...]:
        """One per column."""
        return tuple(p for order in self.primes[self.layer_index(layer)] for p in order)

    def offsets(self, layer: int) -> tuple[int, ...]:
        """The first row of each column."""
        return tuple(accumulate(self.moduli(layer)[:-1], initial=0))

    def rows(self, layer: int) -> int:
        """Rows of a layer's table, padding included."""
        total = sum(self.moduli(layer))
        return total + -total % self.rows_multiple

    @property
    def total_rows(self) -> int:
        """Rows of all layers."""
        return sum(map(self.rows, self.layers))

    @property
    def fingerprint(self) -> str:
        """A digest of everything that addresses depend on; how the multipliers came about is not part of it."""
        content = {k: v for k, v in asdict(self).items() if k not in ("seeding", "seed")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "HashSpec":
        """Raises EngramError, naming them, for unknown or missing keys, and for every inconsistency."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(content) - known):
            raise EngramError(f"the hash spec has unknown keys: {', '.join(unknown)}")
        required = {f.name for f in fields(cls) if f.default is MISSING}
        if missing := sorted(required - set(content)):
            raise EngramError(f"the hash spec lacks {', '.join(missing)}")
        values: dict[str, Any] = {key: _parsed(key, value) for key, value in content.items()}
        return cls(**values)

    @classmethod
    def load(cls, path: Path) -> "HashSpec":
        """Reads a spec's JSON file. Raises EngramError when there is no such file, or it is not a valid spec."""
        content = read_json(path, MAX_SPEC_BYTES, f"{path} is not a hash spec: it").members
        try:
            return cls.from_json(content)
        except EngramError as e:
            raise EngramError(f"{path}: {e}", hint=e.hint) from e

    def save(self, path: Path) -> None:
        write_text(path, json.dumps(self.to_json(), sort_keys=True, indent=1) + "\n")


DEPTHS = {"layers": 1, "primes": 3, "multipliers": 2}  # of nested lists


def _parsed(key: str, value: Any) -> Any:
    """A field's value from JSON: lists as tuples, everything of the type it should be. Raises EngramError."""
    if value is None and key in {"boundary_id", "seed", "seeding"}:
        return None
    if key == "vocab_fingerprint" and not isinstance(value, str):
        raise EngramError(f"the hash spec's {key} is {brief(value)}, expected a text")
    if key == "seeding" and value not in get_args(Seeding):
        raise EngramError(f"the hash spec's {key} is {brief(value)}, expected {' or '.join(get_args(Seeding))}")
    if key in {"vocab_fingerprint", "seeding"}:
        return value
    return _integers(key, value, DEPTHS.get(key, 0))


def _integers(key: str, value: Any, depth: int) -> Any:
    if depth and isinstance(value, list | tuple):
        return tuple(_integers(key, item, depth - 1) for item in value)
    if depth or not isinstance(value, int) or isinstance(value, bool):
        kind = "a list" if depth else "an integer"
        raise EngramError(f"the hash spec's {key} holds {brief(value)}, expected {kind}")
    return value
