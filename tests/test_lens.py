"""The value lens against the products that its definition names, taken from the run's files."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from hashing.base.errors import EngramError, UsageError
from runtime.inspect.histogram import Histogram
from runtime.inspect.lens import ValueLens
from runtime.run import Run
from runtime.trained_run import TrainedRun

LAYER = 1


@pytest.fixture(scope="module")
def lens(trained_run: Run) -> ValueLens:
    return ValueLens(TrainedRun.load(trained_run, torch.device("cpu")))


def rows_of(lens: ValueLens, text: str = "raise ValueError") -> list[int]:
    """All rows that a text's last token reads."""
    ids, lookup = lens.trained.tokenizer.encode(text).ids, lens.trained.lookup("disk")
    assert lookup is not None
    return list(map(int, lookup.addressing.addresses(np.array([ids])).rows[LAYER][0, -1]))


def by_hand(run: Run, columns: dict[int, NDArray[np.float32]], columns_in_all: int) -> NDArray[np.float64]:
    """W_U (g ⊙ W_V e) less its mean, in float64, e having some columns and zeros."""
    tensors = {name: t.double().numpy() for name, t in load_file(run.model_path).items()}
    hidden = len(tensors["norm.weight"])
    width = len(next(iter(columns.values())))
    e = np.zeros(width * columns_in_all)
    for column, vector in columns.items():
        e[column * width : (column + 1) * width] = vector
    value = tensors[f"blocks.{LAYER}.memory.projection.weight"][-hidden:] @ e
    logits = tensors["head.weight"] @ (tensors["norm.weight"] * value)
    return np.asarray(logits - logits.mean())


@pytest.mark.parametrize("columns", [[5], [0, 1, 2, 3], [4, 5, 6, 7], range(8)])
def test_it_is_what_its_definition_says(lens: ValueLens, trained_run: Run, columns: list[int]) -> None:
    all_rows, table = rows_of(lens), lens.trained.tables[LAYER]
    rows = [all_rows[column] for column in columns]
    expected = by_hand(trained_run, {c: table.gather(np.array(all_rows[c])) for c in columns}, 8)
    np.testing.assert_allclose(lens.logits(LAYER, rows), expected, atol=1e-6)
    view = lens.of_rows(LAYER, rows[::-1])  # each row knows its own column
    order = np.argsort(-expected)
    assert [push.token_id for push in view.up] == order[:10].tolist()
    assert [push.token_id for push in view.down] == order[::-1][:10].tolist()
    np.testing.assert_allclose(
        [push.logit for push in view.up + view.down], expected[[*order[:10], *order[::-1][:10]]], atol=1e-6
    )
    assert all(push.token == lens.trained.vocab.texts[push.token_id] for push in view.up + view.down)
    assert sum(view.histogram.counts) == len(expected)
    assert view.histogram.edges[0] == pytest.approx(expected.min(), abs=1e-6)
    assert view.histogram.edges[-1] == pytest.approx(expected.max(), abs=1e-6)


def test_the_rows_of_a_position_add_up(lens: ValueLens) -> None:
    rows = rows_of(lens)
    apart = sum(lens.logits(LAYER, [row]) for row in rows)
    np.testing.assert_allclose(lens.logits(LAYER, rows), apart, atol=1e-5)


def test_as_json(lens: ValueLens) -> None:
    told = lens.of_rows(LAYER, rows_of(lens)).to_json()
    assert set(told) == {"up", "down", "histogram"}
    assert set(told["up"][0]) == {"token", "token_id", "logit"}
    assert (len(told["up"]), len(told["down"])) == (10, 10)
    assert (len(told["histogram"]["edges"]), len(told["histogram"]["counts"])) == (51, 50)


def test_rows_that_cannot_be_asked_for(lens: ValueLens) -> None:
    rows = rows_of(lens)
    with pytest.raises(UsageError, match="are of one column"):
        lens.of_rows(LAYER, [rows[0], rows[0]])
    for outside in (-1, sum(lens.spec.moduli(LAYER))):
        with pytest.raises(UsageError, match=f"layer 1 has no row {outside:,}"):
            lens.of_rows(LAYER, [outside])
    with pytest.raises(EngramError, match="layer 0 has no table"):
        lens.of_rows(0, rows)


def test_a_histogram_counts_every_number_once() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    histogram = Histogram.of(values)
    counted = [
        int(((values >= low) & (values < high)).sum()) for low, high in zip(histogram.edges, histogram.edges[1:], strict=False)
    ]
    counted[-1] += 1  # the largest is in the last bin
    assert list(histogram.counts) == counted
    assert list(histogram.edges) == sorted(histogram.edges)
    assert Histogram.of(np.empty(0), (0, 1)).counts == (0,) * 50
    assert sum(Histogram.of(np.zeros(7)).counts) == 7
