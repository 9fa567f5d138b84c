"""Occupancy and collisions against theory and against sets, and a bad hash that must show."""

from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from hashing import reference
from hashing.base.errors import EngramError
from hashing.ngrams.collisions import (
    Effective,
    alone_probability,
    effective,
    head_collisions,
    joint_collisions,
    mixes,
    occupancy,
    shared_weight,
    size_curve,
    with_base,
)
from hashing.ngrams.counter import NgramCounter
from hashing.ngrams.counts import NgramCounts
from hashing.rule import IDENTITY
from hashing.spec import HashSpec, assign_primes, seeded_multipliers
from hashing.vocab import CanonicalVocab

SIZE = 5000


def make_spec(fingerprint: str = "any", base: int = 20_000, boundary: int | None = None) -> HashSpec:
    return HashSpec(
        layers=(1, 3),
        primes=assign_primes(2, 2, 4, base),
        multipliers=seeded_multipliers("numpy", 0, (1, 3), 3, SIZE),
        pad_id=2,
        canonical_size=SIZE,
        vocab_fingerprint=fingerprint,
        boundary_id=boundary,
    )


def random_grams(distinct: int, order: int, seed: int = 0) -> Effective:
    rng = np.random.default_rng(seed)
    ids = np.unique(rng.integers(0, SIZE, (distinct, order)), axis=0)
    return Effective(ids, rng.zipf(1.5, len(ids)).clip(max=10_000).astype(np.int64))


@pytest.fixture
def counted(tmp_path: Path) -> tuple[NgramCounts, list[list[int]], CanonicalVocab]:
    names = tuple(f"<{i}>" for i in range(SIZE))
    vocab = CanonicalVocab(names, names, np.arange(SIZE, dtype=np.int32), names, IDENTITY.name)
    documents = [np.random.default_rng(seed).zipf(1.3, 200).clip(max=SIZE - 1) for seed in range(5)]
    with NgramCounter(vocab, (2, 3), 10_000, tmp_path) as counter:
        for ids in documents:
            counter.add(ids)
        counter.write(tmp_path / "n.parquet")
    return NgramCounts.open(tmp_path / "n.parquet"), [d.tolist() for d in documents], vocab


def test_theory_against_throwing_balls() -> None:
    balls, rows, throws = 300, 200, 4000
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 20, balls)
    occupied, shared = [], []
    for _ in range(throws):
        where = rng.integers(0, rows, balls)
        load = np.bincount(where, minlength=rows)
        occupied.append(np.count_nonzero(load))
        shared.append(weights[load[where] > 1].sum())
    for sample, (mean, deviation) in [(occupied, occupancy(balls, rows)), (shared, shared_weight(weights, rows))]:
        assert np.mean(sample) == pytest.approx(mean, abs=5 * deviation / throws**0.5)
        assert np.std(sample) == pytest.approx(deviation, rel=0.06)


@pytest.mark.parametrize("order", [2, 3])
def test_random_ngrams_fill_tables_as_a_uniform_hash_does(order: int) -> None:
    heads, joint = joint_collisions(make_spec(), 1, order, random_grams(30_000, order))
    for head in heads:
        for compared in (head.occupied, head.shared, head.shared_traffic):
            assert abs(compared.z) < 4.5, head
    assert abs(joint.shared_in_all.z) < 4.5
    assert joint.correlation_largest < 5 * joint.correlation_noise
    assert sum(joint.alone_in) == joint.distinct
    assert np.array(joint.alone_in) == pytest.approx(np.array(joint.alone_in_expected), abs=5 * joint.distinct**0.5)


def test_a_bad_hash_shows() -> None:
    spec = replace(make_spec(), multipliers=((1, 1, 1), (1, 1, 1)), seeding=None, seed=None)
    heads, joint = joint_collisions(spec, 1, 2, random_grams(30_000, 2))
    assert all(head.occupied.z < -50 and head.shared.z > 50 for head in heads)
    assert joint.correlation > 0.9


def test_figures_against_sets(counted: tuple[NgramCounts, list[list[int]], CanonicalVocab]) -> None:
    """Everything again from the reference's rows of the documents themselves."""
    counts, documents, vocab = counted
    spec = make_spec(vocab.fingerprint, base=1000, boundary=7)
    for order, column in [(2, 1), (3, 6)]:
        row_ngrams: defaultdict[int, set[tuple[int, ...]]] = defaultdict(set)
        row_traffic: defaultdict[int, int] = defaultdict(int)
        reads = []
        for ids in documents:
            for t, rows in enumerate(reference.rows(spec, 3, ids)):
                ngram = tuple(reversed(reference.slots(spec, ids, t)[:order]))
                row = rows[column] - spec.offsets(3)[column]
                row_ngrams[row].add(ngram)
                row_traffic[row] += 1
                reads.append((row, ngram))
        heads = [head for head, _ in head_collisions(spec, 3, order, effective(spec, counts, order))]
        head = heads[column % spec.heads]
        assert head.distinct == len({ngram for _, ngram in reads})
        assert head.occupied.found == len(row_ngrams)
        assert head.shared.found == sum(len(s) for s in row_ngrams.values() if len(s) > 1)
        assert head.shared_traffic.found == sum(row_traffic[row] for row, s in row_ngrams.items() if len(s) > 1)
        top = head.heaviest[0]
        assert top.row == top.head_row + spec.offsets(3)[column]
        assert row_traffic[top.head_row] == max(row_traffic.values())
        assert top.distinct == len(row_ngrams[top.head_row])
        assert top.ngram in row_ngrams[top.head_row]
        assert top.traffic_percent == pytest.approx(100 * row_traffic[top.head_row] / len(reads))


def test_more_rows_collide_less(counted: tuple[NgramCounts, list[list[int]], CanonicalVocab]) -> None:
    counts, _, vocab = counted
    points = size_curve(make_spec(vocab.fingerprint), counts, [500, 5000, 50_000])
    assert len(points) == 3 * 2 * 2
    for layer in (1, 3):
        shared = [p.shared_percent for p in points if (p.layer, p.order) == (layer, 3)]
        assert shared == sorted(shared, reverse=True)
    assert with_base(make_spec(), 500).primes[0][0][0] == 503


@pytest.mark.parametrize("base", [200_000, 2**59])
def test_tables_far_larger_than_their_ngrams(base: int) -> None:
    """The larger ones fit no memory."""
    grams = random_grams(3000, 2)
    spec = make_spec(base=base)
    for head, shared in head_collisions(spec, 1, 2, grams):
        rows, load = np.unique(mixes(spec, 1, grams.ids) % head.rows, return_counts=True)
        assert head.occupied.found == len(rows)
        assert head.shared.found == load[load > 1].sum() == shared.sum()
        assert head.heaviest[0].head_row in rows
        assert head.heaviest[0].traffic_percent >= 100 * grams.counts.max() / grams.counts.sum() - 1e-9


def test_counts_of_another_vocabulary_are_refused(counted: tuple[NgramCounts, list[list[int]], CanonicalVocab]) -> None:
    with pytest.raises(EngramError, match="was counted with vocabulary"):
        effective(make_spec("another"), counted[0], 2)


def test_one_ngram_is_alone() -> None:
    assert alone_probability(1, 10) == 1
    assert occupancy(1, 10) == (pytest.approx(1), pytest.approx(0, abs=1e-6))


@pytest.mark.parametrize(("balls", "rows"), [(72, 16_000_057), (1000, 16_000_057), (3, 2), (5, 1), (40, 7)])
def test_occupancy_is_exact_for_few_ngrams_in_large_tables(balls: int, rows: int) -> None:
    one, two = Fraction(rows - 1, rows) ** balls, Fraction(max(rows - 2, 0), rows) ** balls
    variance = rows * one + rows * (rows - 1) * two - (rows * one) ** 2
    mean, deviation = occupancy(balls, rows)
    assert mean == pytest.approx(float(rows * (1 - one)))
    assert deviation == pytest.approx(sqrt(variance), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("boundary", [None, 7])
def test_a_row_has_the_number_that_the_reference_gives_it(
    counted: tuple[NgramCounts, list[list[int]], CanonicalVocab], boundary: int | None
) -> None:
    """The most frequent n-gram of every heavy row reads that very row, as `hash` and `inspect` number rows."""
    counts, _, vocab = counted
    spec = make_spec(vocab.fingerprint, base=1000, boundary=boundary)
    for layer in spec.layers:
        for order in spec.orders:
            for head, _ in head_collisions(spec, layer, order, effective(spec, counts, order)):
                for heavy in head.heaviest:
                    read = reference.rows(spec, layer, heavy.ngram)[-1][(order - 2) * spec.heads + head.head]
                    assert read == heavy.row
                    assert 0 <= heavy.head_row < head.rows
