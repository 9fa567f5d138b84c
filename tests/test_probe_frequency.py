"""How often training had an n-gram, by counting the training side by hand."""

from collections import Counter
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hashing.ngrams.counts import OrderCounts
from runtime.inspect.probes.frequency import UNKNOWN, Frequency
from runtime.inspect.probes.probed_text import BEFORE, Positions, ending_ngrams, probed_text
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun
from tests.commands import document, engram

Ngram = tuple[int, ...]


@pytest.fixture(scope="module")
def counted_run(trained_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The trained run with its n-grams counted."""
    folder = tmp_path_factory.mktemp("counted") / "run"
    copytree(trained_run.folder, folder)
    assert engram("stats", "--run", folder, "--json").returncode == 0
    return Run(folder)


def training_counts(run: Run, order: int) -> Counter[Ngram]:
    """N-grams of the documents that were trained on, none of which reaches across a document's start."""
    tokens, vocab = Tokens.open(run.train_folder / "tokens"), run.vocab()
    ids, ends = vocab.canonical(tokens.ids("train")), tokens.document_ends("train")
    assert ends is not None
    found: Counter[Ngram] = Counter()
    for document_ids in np.split(ids, ends[:-1]):
        found.update(tuple(document_ids[i : i + order].tolist()) for i in range(len(document_ids) - order + 1))
    return found


@pytest.mark.parametrize("order", [2, 3])
def test_it_is_that_of_the_training_side(counted_run: Run, order: int) -> None:
    trained = TrainedRun.load(counted_run, torch.device("cpu"))
    windows = probed_text(counted_run, trained, [], 4096)
    ngrams = Positions.of(windows, trained.vocab, order).ngrams
    frequency = Frequency.of(counted_run, trained.vocab)
    assert frequency is not None
    found, expected = frequency.of_ngrams(ngrams), training_counts(counted_run, order)
    for ngram, count in zip(map(tuple, ngrams.tolist()), found.tolist(), strict=True):
        assert count == (UNKNOWN if BEFORE in ngram else expected[ngram])
    assert (found == 0).any()
    assert (found > 0).any()


def test_an_ngram_does_not_reach_across_an_end_of_text() -> None:
    found = ending_ngrams(np.array([[7, 0, 5, 6, 8]]), 3, end_id=0)
    b = BEFORE
    assert found.tolist() == [[[b, b, 7], [b, 7, 0], [b, b, 5], [b, 5, 6], [5, 6, 8]]]


ngrams_of_3 = st.lists(st.tuples(*[st.integers(-1, 4)] * 3), max_size=30)


@given(ngrams_of_3, ngrams_of_3)
def test_counts_are_looked_up_as_in_a_dictionary(known: list[Ngram], asked: list[Ngram]) -> None:
    distinct = list(dict.fromkeys(known))
    ids = np.array(distinct, np.int32).reshape(-1, 3)
    counts = np.arange(1, len(distinct) + 1)
    expected = dict(zip(distinct, counts.tolist(), strict=True))
    found = OrderCounts(ids, counts, counts).of(np.array(asked).reshape(-1, 3))
    assert found.tolist() == [expected.get(ngram, 0) for ngram in asked]


def test_commands_split_by_it(counted_run: Run) -> None:
    ablated = document("probe", "ablate", "--only", "order", "--tokens", 2048, "--run", counted_run.folder)
    split = ablated["splits"]["frequency"]
    assert split["title"] == "times in training of the 3-gram read"
    names = [part["name"] for part in split["parts"]]
    assert names[:2] == ["reaches back beyond the text", "never"]
    assert sum(part["tokens"] for part in split["parts"]) == 2048
    gates = document("probe", "gates", "--tokens", 2048, "--run", counted_run.folder)
    (stream,) = gates["streams"]
    assert [part["name"] for part in stream["splits"]["frequency"]] == names
    known = 2048 - split["parts"][0]["tokens"]
    assert stream["correlations"][0]["positions"] == known


def test_pictures_are_drawn(counted_run: Run, tmp_path: Path) -> None:
    for probe in ("ablate", "gates"):
        path = tmp_path / f"{probe}.svg"
        done = engram("probe", probe, "--tokens", 512, "--plot", path, "--run", counted_run.folder)
        assert done.returncode == 0, done.stderr
        assert f"drawn: {path}" in done.stderr
        assert path.read_text().startswith("<?xml")
