"""Rows that are not trained stay as they were drawn; equal ones give every n-gram of a head the same vector."""

from pathlib import Path

import pytest
import torch

from hashing.text.corpus import Corpus
from runtime.run import Run
from runtime.train.choice import chosen_settings
from runtime.train.trainer import Trainer
from tests.runs import build_vocab


def trained(folder: Path, corpus_path: Path, rows: str) -> tuple[Trainer, torch.Tensor]:
    """A nano model after three steps, with its table as it was before."""
    run = Run(folder / rows)
    build_vocab(run, Corpus((corpus_path,)))
    config = chosen_settings(preset="nano", sets=["recipe.steps=3", f"recipe.rows={rows}"]).resolve(run.vocab(), "float32")
    trainer = Trainer.start(run, config, Corpus((corpus_path,)))
    before = trainer.state.tables[1].weight.clone()
    projection = trainer.state.model.blocks[1].memory.projection.weight.clone()  # type: ignore[union-attr]
    for _ in trainer.steps():
        pass
    assert not torch.equal(trainer.state.model.blocks[1].memory.projection.weight, projection)  # type: ignore[union-attr]
    return trainer, before


@pytest.mark.parametrize("rows", ["frozen", "equal"])
def test_frozen_rows_stay_and_trained_ones_do_not(tmp_path: Path, corpus_path: Path, rows: str) -> None:
    frozen, before = trained(tmp_path, corpus_path, rows)
    assert torch.equal(frozen.state.tables[1].weight, before)
    moved, at_first = trained(tmp_path, corpus_path, "trained")
    assert not torch.equal(moved.state.tables[1].weight, at_first)


def test_equal_rows_are_one_vector_for_each_head(tmp_path: Path, corpus_path: Path) -> None:
    trainer, weight = trained(tmp_path, corpus_path, "equal")
    spec = trainer.config.spec
    assert spec
    heads = [weight[first : first + rows] for first, rows in zip(spec.offsets(1), spec.moduli(1), strict=True)]
    assert all(torch.equal(head, head[:1].expand_as(head)) for head in heads)
    assert len({tuple(head[0].tolist()) for head in heads}) == spec.columns
    assert 0.5 < weight.std() / trainer.recipe.row_std < 1.5


def test_they_are_the_same_after_a_resumption(tmp_path: Path, corpus_path: Path) -> None:
    trainer, weight = trained(tmp_path, corpus_path, "equal")
    again = Trainer.resume(trainer.run, steps=5)
    for _ in again.steps():
        pass
    assert torch.equal(again.state.tables[1].weight, weight)
