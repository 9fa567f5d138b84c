"""Collisions: how full a spec's tables get and which n-grams share rows, from saved counts, beside a uniform hash.

The n-grams are hashed again, so any spec over the same vocabulary can be asked about. For D distinct n-grams thrown into p rows
the expectations and variances are exact, those of the classical occupancy problem; a z-score far from 0 is a bad hash.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import comb, exp, expm1, log1p, nan, sqrt

import numpy as np
from numpy.typing import NDArray

from hashing.ngrams.counts import NgramCounts
from hashing.spec import HashSpec, assign_primes

HEAVIEST = 5  # rows named per head
SPARSE_ROWS = 32  # for each n-gram: beyond, a head's rows are sorted instead of counted into a table


@dataclass(frozen=True, slots=True)
class Compared:
    """A measured number beside what a uniform hash gives."""

    found: float
    expected: float
    deviation: float  # standard deviation of the expected

    @property
    def z(self) -> float:
        """How many standard deviations the found is from the expected; NaN where a uniform hash leaves no choice."""
        return (self.found - self.expected) / self.deviation if self.deviation > 0 else nan


@dataclass(frozen=True, slots=True)
class HeavyRow:
    """One of the rows of a head that most occurrences read."""

    row: int  # within the layer's table, as `hash` and `inspect` number it
    head_row: int  # within the head: the n-gram's mix modulo the head's prime
    traffic_percent: float
    distinct: int
    ngram: tuple[int, ...]  # the most frequent one in it


@dataclass(frozen=True, slots=True)
class HeadCollisions:
    layer: int
    order: int
    head: int
    rows: int
    distinct: int  # n-grams
    occupied: Compared  # rows with at least one n-gram
    shared: Compared  # n-grams that are not alone in their row
    shared_traffic: Compared  # their occurrences
    heaviest: tuple[HeavyRow, ...]


@dataclass(frozen=True, slots=True)
class JointCollisions:
    """Over all heads of one order: an n-gram can still be told apart if it is alone in one of them."""

    layer: int
    order: int
    distinct: int
    alone_in: tuple[int, ...]  # (heads + 1,) how many n-grams are alone in 0, 1, … heads
    alone_in_expected: tuple[float, ...]
    shared_in_all: Compared
    correlation: float  # of sharing in one head with sharing in another, mean over pairs
    correlation_largest: float  # in absolute value
    correlation_noise: float  # the standard deviation it has when heads are independent


@dataclass(frozen=True, slots=True)
class Effective:
    """Distinct n-grams as a spec reads them, with their counts."""

    ids: NDArray[np.int64]  # (D, order) in reading order, pads where blocked
    counts: NDArray[np.int64]  # (D,)


def effective(spec: HashSpec, counts: NgramCounts, order: int) -> Effective:
    """Applies the spec's boundary and pad; n-grams that it reads alike become one.

    Raises EngramError when the counts are of another vocabulary or lack the order.
    """
    counts.check_vocab(spec.vocab_fingerprint)
    found = counts.order(order)
    ids = as_read(spec, found.ids)
    if not (ids == spec.pad_id).any():
        return Effective(ids, found.counts)
    padded = (ids == spec.pad_id).any(axis=1)
    merged, inverse = np.unique(ids[padded], axis=0, return_inverse=True)
    sums = np.bincount(inverse.reshape(-1), found.counts[padded]).astype(np.int64)
    return Effective(np.concatenate([ids[~padded], merged]), np.concatenate([found.counts[~padded], sums]))


def as_read(spec: HashSpec, ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """(D, order) Counted n-grams as the spec reads them: pads from where its boundary, or the document's start, blocks."""
    read = ids.astype(np.int64)
    blocked = np.zeros(len(read), bool)
    for place in range(ids.shape[1] - 2, -1, -1):
        blocked |= read[:, place] < 0
        if spec.boundary_id is not None:
            blocked |= read[:, place] == spec.boundary_id
        read[blocked, place] = spec.pad_id
    return read


def mixes(spec: HashSpec, layer: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The mixes (D,) of n-grams (D, order), of which each head of the order takes its modulus."""
    multipliers = spec.multipliers[spec.layer_index(layer)]
    mix = np.zeros(len(ids), np.int64)
    for distance in range(ids.shape[1]):
        mix ^= ids[:, ids.shape[1] - 1 - distance] * multipliers[distance]
    return mix


def alone_probability(balls: int, rows: int) -> float:
    """The probability that one of `balls`, thrown at random into `rows`, has its row to itself."""
    return exp((balls - 1) * log1p(-1 / rows))


def both_alone_probability(balls: int, rows: int) -> float:
    """The probability that two given balls each have their row to themselves."""
    return (1 - 1 / rows) * exp((balls - 2) * log1p(-2 / rows)) if balls > 1 and rows > 2 else 0.0


def occupancy(balls: int, rows: int) -> tuple[float, float]:
    """Mean and standard deviation of the number of rows that `balls` thrown at random occupy."""
    if rows == 1:
        return float(balls > 0), 0.0
    empty, occupied = exp(balls * log1p(-1 / rows)), -expm1(balls * log1p(-1 / rows))
    # That two are empty is rarer than if they were independent, by this much; in full it would cancel away.
    together = expm1(balls * log1p(-1 / (rows - 1) ** 2)) if rows > 2 else -1.0
    variance = rows * empty * occupied + rows * (rows - 1) * empty**2 * together
    return rows * occupied, sqrt(max(variance, 0.0))


def shared_weight(weights: NDArray[np.int64], rows: int) -> tuple[float, float]:
    """Mean and standard deviation of the total weight of balls that do not have their row to themselves."""
    balls, total = len(weights), float(weights.sum())
    squares = float((weights.astype(np.float64) ** 2).sum())
    alone, both = alone_probability(balls, rows), both_alone_probability(balls, rows)
    variance = squares * alone * (1 - alone) + (total**2 - squares) * (both - alone**2)
    return total * (1 - alone), sqrt(max(variance, 0.0))


def head_collisions(
    spec: HashSpec, layer: int, order: int, grams: Effective
) -> Iterator[tuple[HeadCollisions, NDArray[np.bool_]]]:
    """Each head's figures, with which of the n-grams (D,) share their row in it."""
    mix = mixes(spec, layer, grams.ids)
    ones = np.ones(len(mix), np.int64)
    offsets = spec.offsets(layer)[(order - 2) * spec.heads :]
    for head, modulus in enumerate(spec.primes[spec.layer_index(layer)][order - 2]):
        names, rows = _numbered(mix % modulus, modulus)
        load = np.bincount(rows, minlength=len(names))
        shared = load[rows] > 1
        figures = HeadCollisions(
            layer=layer,
            order=order,
            head=head,
            rows=modulus,
            distinct=len(mix),
            occupied=Compared(int(np.count_nonzero(load)), *occupancy(len(mix), modulus)),
            shared=Compared(int(np.count_nonzero(shared)), *shared_weight(ones, modulus)),
            shared_traffic=Compared(int(grams.counts[shared].sum()), *shared_weight(grams.counts, modulus)),
            heaviest=_heaviest(names, offsets[head], rows, load, grams),
        )
        yield figures, shared


def _numbered(rows: NDArray[np.int64], modulus: int) -> tuple[Sequence[int] | NDArray[np.int64], NDArray[np.int64]]:
    """(names, numbers (D,)) such that names[numbers] are the rows: all rows of the table, or only those read of a large one.

    A table of 2^61 rows fits no memory, and one far larger than its n-grams takes longer to clear than these to sort.
    """
    if modulus <= SPARSE_ROWS * len(rows):
        return range(modulus), rows
    return np.unique(rows, return_inverse=True)


def _heaviest(
    names: Sequence[int] | NDArray[np.int64],
    offset: int,
    rows: NDArray[np.int64],
    load: NDArray[np.int64],
    grams: Effective,
) -> tuple[HeavyRow, ...]:
    traffic = np.bincount(rows, grams.counts, len(load))
    occupied = np.flatnonzero(load)  # the others are all alike, over which a partition takes seconds
    top = occupied[np.argpartition(-traffic[occupied], min(HEAVIEST, len(occupied)) - 1)[:HEAVIEST]]
    found = []
    for row in top[np.argsort(-traffic[top], kind="stable")]:
        inside = np.flatnonzero(rows == row)
        ngram = tuple(grams.ids[inside[np.argmax(grams.counts[inside])]].tolist())
        share = 100 * float(traffic[row] / grams.counts.sum())
        head_row = int(names[row])
        found.append(HeavyRow(offset + head_row, head_row, share, int(load[row]), ngram))
    return tuple(found)


def joint_collisions(spec: HashSpec, layer: int, order: int, grams: Effective) -> tuple[list[HeadCollisions], JointCollisions]:
    """Each head's figures, and those of all heads of the order together."""
    heads, shares = zip(*head_collisions(spec, layer, order, grams), strict=True)
    shared = np.stack(shares)  # (heads, D)
    moduli = [head.rows for head in heads]
    distinct = shared.shape[1]
    alone_in = np.bincount(len(heads) - shared.sum(axis=0), minlength=len(heads) + 1)
    alone = [alone_probability(distinct, modulus) for modulus in moduli]
    in_all = float(np.prod([1 - a for a in alone]))
    joint = JointCollisions(
        layer=layer,
        order=order,
        distinct=distinct,
        alone_in=tuple(alone_in.tolist()),
        alone_in_expected=tuple(distinct * share for share in _binomial(len(heads), float(np.mean(alone)))),
        shared_in_all=Compared(int(alone_in[0]), distinct * in_all, sqrt(distinct * in_all * (1 - in_all))),
        **_correlations(shared),
    )
    return list(heads), joint


def _binomial(trials: int, probability: float) -> list[float]:
    return [comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(trials + 1)]


def _correlations(shared: NDArray[np.bool_]) -> dict[str, float]:
    heads, distinct = shared.shape
    varying = shared.astype(np.float32) - shared.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    spread = np.sqrt((varying**2).sum(axis=1, dtype=np.float64))
    if heads < 2 or (spread == 0).any():
        return {"correlation": 0.0, "correlation_largest": 0.0, "correlation_noise": 0.0}
    pairs = ((varying @ varying.T) / np.outer(spread, spread))[np.triu_indices(heads, 1)]
    return {
        "correlation": float(pairs.mean()),
        "correlation_largest": float(np.abs(pairs).max()),
        "correlation_noise": 1 / sqrt(distinct),
    }


def with_base(spec: HashSpec, base: int) -> HashSpec:
    """The spec with tables of about `base` rows per head instead."""
    return replace(spec, primes=assign_primes(len(spec.layers), len(spec.orders), spec.heads, base))


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The means over a layer's heads of one order, at one table size."""

    base: int
    layer: int
    order: int
    heads: int
    distinct: int
    occupied_percent: float
    shared_percent: float
    shared_expected_percent: float
    shared_traffic_percent: float
    shared_in_all_percent: float  # n-grams that no head has to itself


def size_curve(spec: HashSpec, counts: NgramCounts, bases: Sequence[int]) -> list[CurvePoint]:
    """The means over heads for every layer and order of the spec, with tables of each of the sizes in `bases`."""
    points = []
    for order in spec.orders:
        grams = effective(spec, counts, order)
        for base in bases:
            sized = with_base(spec, base)
            points += [_point(base, *joint_collisions(sized, layer, order, grams)) for layer in spec.layers]
    return points


def _point(base: int, heads: list[HeadCollisions], joint: JointCollisions) -> CurvePoint:
    tokens = heads[0].shared_traffic.expected / (1 - alone_probability(joint.distinct, heads[0].rows))
    return CurvePoint(
        base=base,
        layer=joint.layer,
        order=joint.order,
        heads=len(heads),
        distinct=joint.distinct,
        occupied_percent=100 * float(np.mean([h.occupied.found / h.rows for h in heads])),
        shared_percent=100 * float(np.mean([h.shared.found / h.distinct for h in heads])),
        shared_expected_percent=100 * float(np.mean([h.shared.expected / h.distinct for h in heads])),
        shared_traffic_percent=100 * float(np.mean([h.shared_traffic.found for h in heads])) / tokens,
        shared_in_all_percent=100 * joint.shared_in_all.found / joint.distinct,
    )
