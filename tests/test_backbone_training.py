"""Every form of the backbone is trained, interrupted, gone on with, and read by the other commands."""

from pathlib import Path

import pytest
import torch

from hashing.text.corpus import Corpus
from runtime.run import Run
from runtime.tensor_file import load_tensors
from runtime.train.choice import chosen_settings
from runtime.train.trainer import Trainer
from runtime.trained_run import TrainedRun
from tests.commands import document
from tests.runs import build_vocab

FORMS = {
    "experts": ["model.experts=6", "model.experts_per_token=2", "model.expert_ffn=16", "recipe.balance_rate=0.01"],
    "streams": ["model.streams=4", "model.kv_heads=1", "model.qk_norm=true"],
    "single pass": ["model.streams=2", "model.stream_form=single_pass", "model.experts=3", "model.dense_blocks=0"],
}
OPTIMISERS = {
    "muon": ["recipe.optimizer=muon", "recipe.row_rule=rowwise_adam", "recipe.row_momentum=0", "model.kv_heads=1"],
    "muon over experts": ["recipe.optimizer=muon", "recipe.row_rule=sinkhorn", "model.experts=3", "model.expert_ffn=16"],
}
STEPS = 8


def begun(run: Run, corpus: Corpus, sets: list[str]) -> Trainer:
    build_vocab(run, corpus)
    options = {"recipe.steps": STEPS, "recipe.evaluations": 1}
    settings = chosen_settings(preset="nano", sets=sets, options=options)
    return Trainer.start(run, settings.resolve(run.vocab(), "float32"), corpus)


@pytest.mark.parametrize("form", [*FORMS, *OPTIMISERS])
def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path: Path, corpus_path: Path, form: str) -> None:
    corpus, whole, parts = Corpus((corpus_path,)), Run(tmp_path / "whole"), Run(tmp_path / "parts")
    sets = {**FORMS, **OPTIMISERS}[form]
    expected = [report.loss for report in begun(whole, corpus, sets).steps()]
    trainer = begun(parts, corpus, sets)
    found = [report.loss for report in trainer.steps(lambda: trainer.state.step == 3)]
    assert len(found) == 3
    found += [report.loss for report in Trainer.resume(parts).steps()]
    assert found == expected
    one, other = (load_tensors(run.model_path)[0] for run in (whole, parts))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    if "experts" in form:
        assert one["blocks.1.ffn.bias"].abs().sum() > 0


@pytest.mark.parametrize("form", FORMS)
def test_other_commands_read_it(tmp_path: Path, corpus_path: Path, form: str) -> None:
    run = Run(tmp_path / "run")
    for _ in begun(run, Corpus((corpus_path,)), FORMS[form]).steps():
        pass
    said = document("eval", "def one(x):\n    return x", "--run", run.folder)
    assert said["nats_per_token"] > 0
    places = {
        place: document("generate", "def ", "--max-tokens", 5, "--placement", place, "--run", run.folder)
        for place in ("device", "disk")
    }
    assert places["device"]["text"] == places["disk"]["text"]
    assert TrainedRun.load(run, torch.device("cpu")).config.model.streams in (1, 2, 4)
