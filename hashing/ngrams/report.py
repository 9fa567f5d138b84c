"""CollisionReport: everything that saved counts say of a spec's tables, order by order and layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hashing.ngrams.collisions import CurvePoint, HeadCollisions, JointCollisions, effective, joint_collisions, size_curve
from hashing.ngrams.counts import NgramCounts, Totals
from hashing.spec import HashSpec, seeded_multipliers
from hashing.vocab import CanonicalVocab

TOP_NGRAMS = 5


@dataclass(frozen=True, slots=True)
class FrequentNgram:
    ids: tuple[int, ...]  # in reading order, -1 before the document
    count: int
    documents: int


@dataclass(frozen=True, slots=True)
class CollisionReport:
    totals: Totals
    spec_fingerprint: str
    top: dict[int, list[FrequentNgram]]  # by order, the most frequent first
    heads: list[HeadCollisions]
    joint: list[JointCollisions]
    curve: list[CurvePoint]  # over table sizes


def collision_report(spec: HashSpec, counts: NgramCounts, bases: Sequence[int] = ()) -> CollisionReport:
    """The figures of every head and order of the spec, and of tables with each number of rows per head in `bases`."""
    heads: list[HeadCollisions] = []
    joints: list[JointCollisions] = []
    for order in spec.orders:
        grams = effective(spec, counts, order)
        for layer in spec.layers:
            per_head, joint = joint_collisions(spec, layer, order, grams)
            heads, joints = [*heads, *per_head], [*joints, joint]
    top = {order: most_frequent(counts, order) for order in spec.orders}
    return CollisionReport(
        counts.totals, spec.fingerprint, top, heads, joints, size_curve(spec, counts, bases) if bases else []
    )


def most_frequent(counts: NgramCounts, order: int) -> list[FrequentNgram]:
    """The `TOP_NGRAMS` n-grams of an order with the highest counts, the highest first."""
    found = counts.order(order)
    best = np.argsort(-found.counts, kind="stable")[:TOP_NGRAMS]
    return [FrequentNgram(tuple(found.ids[i].tolist()), int(found.counts[i]), int(found.documents[i])) for i in best]


def addressed_raw(spec: HashSpec, vocab: CanonicalVocab) -> HashSpec:
    """A spec of tables of the same sizes, addressed by the raw token ids of an identity vocabulary."""
    multipliers = seeded_multipliers(spec.seeding or "numpy", spec.seed or 0, spec.layers, spec.max_order, vocab.size)
    own = replace(spec, seeding=None, seed=None, multipliers=multipliers, canonical_size=vocab.size)
    return replace(own, vocab_fingerprint=vocab.fingerprint)
