"""Whatever the settings, a training runs, is saved and loaded, and decodes as it computes whole sequences."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hashing.text.corpus import Corpus
from runtime.run import Run
from runtime.sequence import Sequence
from runtime.train.choice import chosen_settings
from runtime.train.trainer import Trainer
from runtime.trained_run import TrainedRun
from tests.runs import build_vocab

STEPS = 3


@pytest.mark.parametrize(
    "sets",
    [
        ["model.tied=true"],
        ["memory.bias=true", "memory.gate=sigmoid"],
        ["memory.conv=false", "memory.orders=2"],
        ["memory.gate=none"],
        ["recipe.rows=frozen", "memory.gate=none", "memory.conv=false"],
        ["recipe.rows=equal"],
        ["memory.kernel=1"],
        ["memory.kernel=2", "memory.orders=2,3,4", "memory.conv_zero_init=false", "memory.heads=3", "memory.head_dim=5"],
        ["model.blocks=3", "model.hidden=36", "model.heads=3", "model.ffn=7", "model.rope_base=100", "memory.layers=0,2"],
        ["memory.pad_token=9", "memory.boundary_token=3", "memory.rows_multiple=128", "memory.seeding=splitmix64"],
        ["recipe.row_rate_factor=0", "recipe.weight_decay=0", "recipe.warmup_share=1", "recipe.row_std=0"],
        ["recipe.warmup_share=0", "recipe.batch=1", "recipe.length=1", "recipe.evaluations=9"],
        ["memory=none", "model.tied=true", "precision=bfloat16"],
    ],
    ids=" ".join,
)
def test_it_trains_saves_loads_and_decodes(tmp_path: Path, corpus_path: Path, sets: list[str]) -> None:
    run = Run(tmp_path / "run")
    build_vocab(run, Corpus((corpus_path,)))
    config = chosen_settings(preset="nano", sets=[*sets, f"recipe.steps={STEPS}"]).resolve(run.vocab(), "float32")
    trainer = Trainer.start(run, config, Corpus((corpus_path,)))
    assert [report.step for report in trainer.steps()] == [1, 2, 3]
    assert Trainer.resume(run).state.step == STEPS
    trained = TrainedRun.load(run, torch.device("cpu"))
    assert trained.config == config
    ids = trainer.tokens.ids("validation")[:12].astype(np.int64)
    lookup = trained.lookup("disk")
    sequence = Sequence(trained.model, lookup)
    decoded = torch.stack([sequence.feed([int(i)]) for i in ids])
    with torch.inference_mode():
        whole = trained.model.logits(torch.from_numpy(ids[None]), lookup.vectors(ids[None]) if lookup else None)[0]
    torch.testing.assert_close(decoded, whole, rtol=1e-4, atol=1e-5)
