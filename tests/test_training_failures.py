"""What ends a training early ends it in one sentence, saves nothing that is bad, and leaves what was good to go on from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus
from runtime.run import Run
from runtime.tensor_file import load_tensors
from runtime.train.trainer import Trainer
from tests.commands import ROOT, Done, engram, largest_file, refused
from tests.runs import build_vocab, content

STEPS = ("--resume", "--steps", "60")
SPARE_BYTES = 200 << 20  # of address space, beyond what a process has when it begins to train


@pytest.fixture
def own(tmp_path: Path, trained_run: Run) -> Run:
    return Run(shutil.copytree(trained_run.folder, tmp_path / "run"))


def saved(run: Run) -> dict[str, str]:
    return {
        name: digest
        for name, digest in content(run).items()
        if not name.endswith((".jsonl", "config.json")) and "tensorboard" not in name
    }


@pytest.mark.parametrize("place", ["backbone", "rows"])
def test_a_loss_that_is_no_number_ends_the_training_and_names_the_step(own: Run, place: str) -> None:
    trainer, before = Trainer.resume(own, steps=60), saved(own)
    steps = trainer.steps()
    assert next(steps).step == 31
    if place == "backbone":
        next(trainer.state.model.parameters()).data.fill_(float("nan"))
    else:
        trainer.state.tables[1].weight.fill_(float("inf"))
    message = "the loss of step 32 is nan, which ends the training; the checkpoint of step 30 stays"
    with pytest.raises(EngramError, match=f"^{message}$"):
        list(steps)
    assert saved(own) == before
    assert [report.step for report in Trainer.resume(own).steps()] == list(range(31, 61)), "it goes on from there"


def test_a_learning_rate_that_is_far_too_large_ends_in_a_sentence(tmp_path: Path, vocab_run: Run, corpus_path: Path) -> None:
    run = shutil.copytree(vocab_run.folder, tmp_path / "run")
    sets = ("--set", "recipe.learning_rate=1e18", "--set", "recipe.checkpoint_steps=1")
    done = engram("train", "--preset", "nano", *sets, "--corpus", corpus_path, "--run", run)
    refused(done, 1, r"(the loss of|after) step \d+ .*\nhint: a training with a smaller recipe\.learning_rate")
    files = list((run / "train").rglob("*.safetensors"))
    assert files
    assert all(bool(tensor.isfinite().all()) for file in files for tensor in load_tensors(file)[0].values())


def test_rows_that_are_no_numbers_are_not_saved(own: Run) -> None:
    trainer, before = Trainer.resume(own, steps=60), saved(own)
    row = torch.tensor([5])
    trainer.state.tables[1].weight[row] = float("inf")
    trainer.state.mark(1, row)
    trainer.state.step += 1
    with pytest.raises(EngramError, match="after step 31 the model or its rows hold numbers that are infinite or NaN"):
        trainer._save(None)
    trainer.close()
    assert saved(own) == before


LIMITED = """
import resource, sys
from engram_cli.main import main

def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("metrics.jsonl"):
        size_bytes = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size_bytes + int(sys.argv[1]),) * 2)

sys.addaudithook(hook)
main(sys.argv[2:])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="a process's size is read from /proc")
def test_a_batch_that_does_not_fit_in_memory_is_told_and_fits_in_parts(
    tmp_path: Path, vocab_run: Run, corpus_path: Path
) -> None:
    run = shutil.copytree(vocab_run.folder, tmp_path / "run")
    sets = ("--set", "recipe.batch=512", "--set", "recipe.sample_tokens=0", "--steps", "1")
    arguments = ("train", "--preset", "nano", *sets, "--corpus", str(corpus_path), "--force", "--run", str(run))
    refused(limited(*arguments), 1, "not enough memory for a batch of 512 sequences of 64 tokens.*\nhint: .*recipe.accumulate")
    fitting = limited(*arguments, "--set", "recipe.accumulate=64")
    assert fitting.returncode == 0, fitting.stderr


def limited(*arguments: str) -> Done:
    """A command in a process that cannot have more than SPARE_BYTES beyond what it starts with."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(SPARE_BYTES), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_full_drive_while_saving_leaves_the_checkpoint_before(own: Run) -> None:
    before, longest = saved(own), own.model_path.stat().st_size // 2
    with largest_file(longest):
        done = engram("train", *STEPS, "--run", own.folder)
    message = "the checkpoint of step 60 cannot be written: File too large; that of step 30 stays"
    refused(done, 1, f"{message}\nhint: once there is room, engram train --resume .* goes on")
    assert saved(own) == before
    assert not list(own.folder.rglob("*.partial"))
    done = engram("train", *STEPS, "--run", own.folder, "--json")
    assert (done.returncode, json.loads(done.stdout)["steps"]) == (0, 60)


def test_a_training_is_not_resumed_with_another_spec(own: Run) -> None:
    config = json.loads(own.config_path.read_text())
    config["spec"] |= {"seed": None, "seeding": None}
    config["spec"]["multipliers"][0][0] += 2
    own.config_path.write_text(json.dumps(config))
    before = content(own)
    message = "is of hash spec .*, but its config.json of .*\nhint: put the configuration back, or start again with"
    refused(engram("train", *STEPS, "--run", own.folder), 1, message)
    assert content(own) == before


def test_a_training_is_not_resumed_with_another_vocabulary(own: Run, corpus_path: Path) -> None:
    build_vocab(own, Corpus((corpus_path,)), size=400)
    before = content(own)
    refused(engram("train", *STEPS, "--run", own.folder), 1, "uses vocabulary .*, vocab.parquet is .*\nhint: put the vocab")
    assert content(own) == before


def test_a_training_is_not_resumed_with_another_model(own: Run) -> None:
    config = json.loads(own.config_path.read_text())
    config["model"]["ffn"] = 96
    own.config_path.write_text(json.dumps(config))
    refused(engram("train", *STEPS, "--run", own.folder), 1, "does not fit the run's config.json: .*size mismatch.*\nhint: put")
