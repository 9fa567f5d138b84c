"""The bootstrap is a plain loop that draws documents, only faster."""

import numpy as np
import pytest

from runtime.inspect.probes import bootstrap
from runtime.inspect.probes.bootstrap import RESAMPLES, SEED, mean_interval, mean_intervals


def test_it_is_a_loop_that_draws_documents() -> None:
    random = np.random.default_rng(5)
    documents = random.integers(0, 9, 400) * 3  # numbers with gaps
    parts, values = random.integers(0, 2, 400), random.normal(1, 2, (3, 400))
    numbers, generator = np.unique(documents), np.random.default_rng(SEED)
    means = []
    for _ in range(RESAMPLES):
        drawn = [np.flatnonzero(documents == numbers[i]) for i in generator.integers(0, len(numbers), len(numbers))]
        tokens = np.concatenate(drawn)
        means.append([[row[tokens[parts[tokens] == part]].mean() for part in range(2)] for row in values])
    expected = np.percentile(means, (2.5, 97.5), axis=0).transpose(1, 2, 0)  # (3 rows, 2 parts, 2 bounds)
    assert np.array(mean_intervals(documents, values, parts, 2)) == pytest.approx(expected)


def test_draws_are_the_same_however_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    documents, values = random.integers(0, 40, 500), random.normal(size=500)
    at_once = mean_interval(documents, values)
    monkeypatch.setattr(bootstrap, "DRAWN_AT_ONCE", 77)
    assert mean_interval(documents, values) == pytest.approx(at_once)


def test_it_covers_the_true_mean_about_as_often_as_it_says() -> None:
    """Tokens of a document share most of what they are, which an interval over tokens would not know."""
    random, covered, widths, narrow = np.random.default_rng(2), 0, [], []
    documents = np.repeat(np.arange(40), random.integers(1, 30, 40))
    for _ in range(200):
        values = random.normal(0, 1, 40)[documents] + random.normal(0, 0.3, len(documents))
        found = mean_interval(documents, values)
        assert found is not None
        covered += found[0] < 0 < found[1]
        widths.append(found[1] - found[0])
        narrow.append(2 * 1.96 * values.std() / np.sqrt(len(values)))
    assert 0.85 <= covered / 200 <= 0.99
    assert np.mean(widths) > 2 * np.mean(narrow)


def test_one_document_says_nothing() -> None:
    assert mean_interval(np.array([4, 4, 4]), np.array([1.0, 2.0, 3.0])) is None
    documents, parts = np.array([0, 0, 1, 1]), np.array([0, 2, 0, 0])
    whole, empty, one = mean_intervals(documents, np.ones((1, 4)), parts, 3)[0]
    assert whole == (1.0, 1.0)
    assert empty is None
    assert one is None
