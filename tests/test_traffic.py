"""Cache curves against a cache that is really run, and against streams whose answer is known."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hashing.ngrams.traffic import RowStream, distinct_per_batch, miss_curve, static_hot, traffic


def run_lru(reads: list[int], capacity: int) -> float:
    """Miss ratio of a cache that is actually kept."""
    cache: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for row in reads:
        if row in cache:
            cache.move_to_end(row)
            continue
        misses += 1
        cache[row] = None
        if len(cache) > capacity:
            cache.popitem(last=False)
    return misses / len(reads)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_the_curve_is_that_of_a_real_cache(reads: list[int]) -> None:
    curve = miss_curve(np.array(reads) * 1_000_003)
    assert curve.exact
    for size, ratio in zip(curve.cache_rows.tolist(), curve.miss_ratio, strict=True):
        assert ratio == pytest.approx(run_lru(reads, size))


def test_a_loop_misses_always_or_never() -> None:
    reads = np.tile(np.arange(1000), 20)
    curve = miss_curve(reads)
    assert curve.at(999)[0] == 1
    assert curve.at(1000)[0] == pytest.approx(1 / 20)


def uniform(rows: int, reads: int) -> NDArray[np.int64]:
    return np.random.default_rng(3).integers(0, rows, reads)


def test_uniform_reads_hit_as_often_as_the_cache_holds_their_row() -> None:
    rows, reads = 2000, 400_000
    curve = miss_curve(uniform(rows, reads))
    for size in (100, 500, 1000):
        # A read hits when its row is among the `size` latest of `rows` equally likely ones.
        place = int(np.searchsorted(curve.cache_rows, size, "right")) - 1
        share = curve.cache_rows[place] / rows
        noise = (share * (1 - share) / reads) ** 0.5
        assert curve.at(size)[0] == pytest.approx(1 - share, abs=5 * noise + rows / reads)


def test_the_sampled_estimate_agrees_within_its_stated_error() -> None:
    rng = np.random.default_rng(5)
    chance = 1 / np.arange(1, 20_001) ** 0.8
    reads = rng.choice(20_000, 300_000, p=chance / chance.sum())
    exact, sampled = miss_curve(reads), miss_curve(reads, exact_reads=60_000)
    assert exact.exact
    assert not sampled.exact
    inside = sampled.cache_rows >= 200
    off = np.abs(exact.miss_ratio - sampled.miss_ratio)[inside]
    assert (sampled.error[inside] > 0).all()
    assert (off <= 4 * sampled.error[inside] + 0.01).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_static_hot_rows_answer_their_share(reads: list[int]) -> None:
    counts = sorted((reads.count(row) for row in set(reads)), reverse=True)
    shares = static_hot(np.array(reads), np.array([0, 1, 3, 100]))
    assert shares.tolist() == [0, counts[0] / len(reads), sum(counts[:3]) / len(reads), 1]


def test_distinct_rows_per_batch() -> None:
    rows = np.array([[1, 2], [1, 3], [1, 2], [1, 2]])
    assert distinct_per_batch(rows, 1) == 2
    assert distinct_per_batch(rows, 2) == 2.5
    assert distinct_per_batch(rows, 100) == 3


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=300), st.integers(1, 80))
def test_the_cache_that_is_asked_about_is_on_the_curve(reads: list[int], capacity: int) -> None:
    stream = RowStream(0, "all", np.array(reads)[:, None])
    assert traffic(stream, capacity).lru_hit_percent == pytest.approx(100 * (1 - run_lru(reads, capacity)))
