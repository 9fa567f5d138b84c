"""CKA by the plain formula, by what it must not change under, and on two seeds of one model."""

from dataclasses import replace
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from hashing.text.corpus import Corpus
from runtime.config import RunConfig
from runtime.inspect.probes.probed_text import probed_text
from runtime.inspect.probes.similarity import alignment, cka, hsic, word_ends
from runtime.inspect.probes.token_classes import TokenClasses
from runtime.run import Run
from runtime.train.presets import preset
from runtime.train.trainer import Trainer
from runtime.trained_run import TrainedRun
from tests.commands import document, engram, refused
from tests.runs import build_vocab


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased HSIC with a linear kernel, as the formula is written, with matrices of ones."""
    n = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    ones = np.ones(n)
    trace = np.trace(k @ l)
    means = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return float((trace + means - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3)))


def test_hsic_is_the_plain_formula() -> None:
    x, y = gaussian(2, 12, 5, seed=0), gaussian(3, 12, 7, seed=1)
    grams = [states @ states.transpose(1, 2) for states in (x, y)]
    for gram in grams:
        gram.diagonal(dim1=1, dim2=2).zero_()
    expected = [[plain_hsic(a.numpy(), b.numpy()) for b in y] for a in x]
    assert hsic(*grams).numpy() == pytest.approx(np.array(expected))


def test_batches_are_summed_before_the_ratio() -> None:
    x = gaussian(1, 30, 5, seed=0)
    y = x + gaussian(1, 30, 5, seed=1)
    batches = [(x[0, i : i + 10].numpy(), y[0, i : i + 10].numpy()) for i in (0, 10, 20)]
    cross = sum(plain_hsic(a, b) for a, b in batches)
    own, other = (sum(plain_hsic(part[i], part[i]) for part in batches) for i in (0, 1))
    assert float(cka(x, y, 10)[0, 0]) == pytest.approx(cross / np.sqrt(own * other))
    assert cka(x[:, :29], y[:, :29], 10)[0, 0] == pytest.approx(cka(x[:, :20], y[:, :20], 10)[0, 0]), "whole batches only"


def test_it_does_not_see_rotation_scale_and_shift() -> None:
    x = gaussian(2, 512, 16, seed=0)
    rotation, _ = torch.linalg.qr(gaussian(16, 16, seed=1))
    y = x + 0.5 * gaussian(2, 512, 16, seed=2)
    assert cka(x, x).diagonal() == pytest.approx(np.ones(2))
    assert cka(x @ rotation * 7, y) == pytest.approx(cka(x, y))
    assert cka(x + 3, y) == pytest.approx(cka(x, y))
    assert pytest.approx(cka(y, x)) == cka(x, y).T


def test_unrelated_states_are_about_0() -> None:
    """Where the biased estimate is far from it: there are as many dimensions as positions of a batch."""
    x, y = gaussian(1, 2048, 256, seed=0), gaussian(1, 2048, 256, seed=1)
    assert abs(cka(x, y)[0, 0]) < 0.02
    centred = [part[0, :256] - part[0, :256].mean(0) for part in (x, y)]
    cross, own, other = ((a.T @ b).square().sum() for a, b in ((centred[0], centred[1]), (centred[0],) * 2, (centred[1],) * 2))
    assert cross / (own * other).sqrt() > 0.4


def test_alignment_is_the_centre_of_the_five_most_similar() -> None:
    similarity = np.array([[0.1, 0.0], [0.9, 0.0], [0.8, 0.0], [0.5, 0.0], [0.4, 0.25], [0.3, -0.9], [0.2, 0.75]])
    of_five = (0.9 * 1 + 0.8 * 2 + 0.5 * 3 + 0.4 * 4 + 0.3 * 5) / (0.9 + 0.8 + 0.5 + 0.4 + 0.3)
    assert alignment(similarity) == pytest.approx([of_five, (0.25 * 4 + 0.75 * 6) / 1.0])


def test_positions_are_the_ends_of_words(trained_run: Run) -> None:
    trained = TrainedRun.load(trained_run, torch.device("cpu"))
    vocab = trained.vocab
    classes = TokenClasses.of_vocab(vocab)
    (block, *_) = probed_text(trained_run, trained, [], 256)
    for inputs, targets, chosen in zip(block.inputs, block.targets, word_ends(block, classes), strict=True):
        for place in np.flatnonzero(chosen):
            text, after = vocab.texts[inputs[place]], vocab.texts[targets[place]]
            assert text[-1].isalnum() or text.strip()[0] in "_0123456789" or text.strip()[0].isalpha()
            assert not (after[0].isalpha() and text[-1].isalnum())
        assert 0 < chosen.sum() < len(chosen)


def trained_as(folder: Path, vocab_of: Run, corpus: Path, config: RunConfig) -> Run:
    """A run on another's tokenizer and vocabulary."""
    run = Run(folder)
    folder.mkdir()
    for path in (vocab_of.tokenizer_path, vocab_of.vocab_path):
        copy(path, folder)
    for _ in Trainer.start(run, config, Corpus((corpus,))).steps():
        pass
    return run


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory, vocab_run: Run, corpus_path: Path) -> list[Run]:
    """One model from three seeds, trained until they agree on something."""
    folder = tmp_path_factory.mktemp("seeds")
    config = preset("nano", vocab_run.vocab(), "float32", steps=100)
    recipes = [replace(config.recipe, seed=seed, evaluations=1, sample_tokens=0) for seed in range(3)]
    return [trained_as(folder / str(recipe.seed), vocab_run, corpus_path, replace(config, recipe=recipe)) for recipe in recipes]


def test_two_seeds_are_alike_and_no_more_than_their_null(seeds: list[Run]) -> None:
    first, second, null = (run.folder for run in seeds)
    call = ("probe", "cka", "--tokens", 4096, "--run", first, "--with", second)
    found = document(*call, "--null", null)
    matrix = np.array(found["cka"])
    assert matrix.shape == (2, 2)
    assert (matrix > 0.2).all(), "they learn the same text"
    assert (matrix < 0.97).all(), "but differ"
    assert found["alignment"] == pytest.approx(alignment(matrix))
    less = np.array(found["alignment"]) - np.array(found["null_alignment"])
    assert found["alignment_less_null"] == pytest.approx(less)
    assert np.abs(less).max() < 0.06, "a seed against a seed is the null itself"
    assert found["positions"] > 500
    assert found["positions"] % found["batch"] == 0
    with_itself = document(*call)
    assert with_itself["cka"] == found["cka"]
    assert with_itself["null"].endswith("with itself")
    assert np.abs(with_itself["alignment_less_null"]).max() > np.abs(less).max()
    as_its_own_null = document(*call, "--null", first)
    assert as_its_own_null["alignment_less_null"] == pytest.approx([0, 0], abs=1e-12)


def test_a_run_is_itself_until_its_memory_is_suppressed(trained_run: Run) -> None:
    """The memory is in the second block: the first one's output is the same with it and without."""
    same = document("probe", "cka", "--tokens", 1024, "--run", trained_run.folder, "--with", trained_run.folder)
    assert np.array(same["cka"]).diagonal() == pytest.approx(np.ones(2))
    assert same["alignment_less_null"] == pytest.approx([0, 0], abs=1e-12)
    suppressed = document("probe", "cka", "--tokens", 1024, "--run", trained_run.folder)
    assert suppressed["with"] == "itself, memory suppressed"
    assert suppressed["cka"][0][0] == pytest.approx(1)
    assert suppressed["cka"][1][1] < 0.9999
    assert suppressed["alignment_less_null"][0] == pytest.approx(0, abs=0.01)


def test_what_a_person_reads_and_sees(trained_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cka.png"
    done = engram("probe", "cka", "--tokens", 1024, "--run", trained_run.folder, "--plot", path)
    assert done.returncode == 0, done.stderr
    assert "less the null" in done.stdout
    assert path.read_bytes().startswith(b"\x89PNG")


def test_runs_that_cannot_be_compared(trained_run: Run, tmp_path: Path, corpus_path: Path) -> None:
    other = Run(tmp_path / "other")
    build_vocab(other, Corpus((corpus_path,)), size=400)
    config = preset("nano", other.vocab(), "float32", steps=1)
    for _ in Trainer.start(other, config, Corpus((corpus_path,))).steps():
        pass
    call = ("probe", "cka", "--tokens", 256, "--run", trained_run.folder)
    refused(engram(*call, "--with", other.folder), 1, "read text differently: vocabularies .* of 512 tokens and .* of 400")
    refused(engram(*call, "--with", tmp_path / "none"), 1, "has no tokenizer.json")
    shape = preset("nano", trained_run.vocab(), "float32", steps=1)
    shape = replace(shape, model=replace(shape.model, blocks=3))
    deeper = trained_as(tmp_path / "deeper", trained_run, corpus_path, shape)
    compared = document(*call, "--with", deeper.folder)
    assert np.array(compared["cka"]).shape == (3, 2)
    assert compared["null"] is None
    assert compared["alignment_less_null"] is None
    refused(engram(*call, "--with", deeper.folder, "--null", deeper.folder), 1, "the null has 3 blocks, expected 2")
    (tmp_path / "short.txt").write_text("x")
    refused(engram(*call, "--corpus", tmp_path / "short.txt"), 1, "0 ends of words, expected at least 4|1 ends of words")
