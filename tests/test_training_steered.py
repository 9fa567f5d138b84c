"""Trainings that are extended, end by time or by loss, keep their best checkpoint, and write samples; and `engram plot`."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hashing.base.errors import UsageError
from runtime.checkpoints import best_checkpoint, checkpoints
from runtime.run import Run
from runtime.tensor_file import read_metadata
from runtime.train.metrics import Metrics
from runtime.train.trainer import Trainer
from runtime.trained_run import TrainedRun
from tests.commands import document, engram, engram_process, refused

SECONDS = 60.0


@pytest.fixture
def own(tmp_path: Path, trained_run: Run) -> Run:
    return Run(shutil.copytree(trained_run.folder, tmp_path / "run"))


def lines(run: Run) -> list[dict[str, Any]]:
    return list(Metrics(run.train_folder).lines())


def test_resume_with_more_steps_extends_and_the_run_remembers(own: Run) -> None:
    done = document("train", "--resume", "--steps", "45", "--run", own.folder)
    assert done["steps"] == 45
    assert [line["step"] for line in lines(own)] == list(range(1, 46))
    assert own.config().recipe.steps == 45
    again = engram("train", "--resume", "--steps", "45", "--run", own.folder)
    assert again.returncode == 0, "asking for what is there is no fault"
    refused(engram("train", "--resume", "--steps", "44", "--run", own.folder), 2, "is at step 45.*nothing left to do")
    assert own.config().recipe.steps == 45


def test_steps_become_minutes_and_the_clock_goes_on(own: Run) -> None:
    before = lines(own)[-1]["elapsed_sec"]
    done = document("train", "--resume", "--minutes", str((before + 2) / SECONDS), "--run", own.folder)
    assert done["steps"] > 30
    assert before + 2 <= done["elapsed_sec"] < before + 30
    recipe = own.config().recipe
    assert (recipe.steps, recipe.minutes) == (None, pytest.approx((before + 2) / SECONDS))


def test_a_budget_of_minutes_has_all_its_validations_and_ends(tmp_path: Path, vocab_run: Run, corpus_path: Path) -> None:
    run = Run(shutil.copytree(vocab_run.folder, tmp_path / "run"))
    options = ["--preset", "nano", "--minutes", "0.05", "--corpus", corpus_path, "--run", run.folder]
    done = document("train", *options)
    assert done["elapsed_sec"] >= 3
    found = lines(run)
    assert found[-1]["step"] == done["steps"]
    assert "validation_nats" in found[-1]
    assert 1 <= sum("validation_nats" in line for line in found) <= 2
    assert found[-1]["validation_nats"] == done["validation_nats"]


def test_until_loss_ends_at_the_first_validation_that_is_as_low(own: Run) -> None:
    aim = lines(own)[-1]["validation_nats"] - 1e-3
    done = document("train", "--resume", "--steps", "400", "--until-loss", str(aim), "--run", own.folder)
    assert done["validation_nats"] <= aim
    assert done["steps"] == 200, "of two validations it took the first"
    again = engram("train", "--resume", "--run", own.folder)
    assert again.returncode == 0
    assert lines(own)[-1]["step"] == 200


def test_the_best_checkpoint_is_kept_beside_the_newest(own: Run) -> None:
    trainer = Trainer.resume(own, steps=90)
    for nats in (2.0, 1.0, 3.0, 4.0):
        trainer.state.step += 1
        trainer._save(nats)
    trainer.close()
    kept = checkpoints(own.train_folder)
    assert [(c.step, c.validation_nats) for c in kept] == [(32, 1.0), (34, 4.0)]
    assert best_checkpoint(own.train_folder).step == 32
    newest, best = (TrainedRun.load(own, torch.device("cpu"), best) for best in (False, True))
    assert (newest.store and newest.store.step, best.store and best.store.step) == (34, 32)
    assert read_metadata(own.model_path)["step"] == "34"
    assert document("generate", "def", "--best", "--run", own.folder)["tokens"] > 0
    assert document("eval", "--best", "--run", own.folder)["tokens"] > 0


def test_the_newest_few_are_kept_with_the_best_and_the_last_that_others_read(own: Run) -> None:
    trainer = Trainer.resume(own, steps=90, kept=3)
    for nats, whole in ((1.0, True), (2.0, True), (None, False), (None, False), (None, False), (None, False)):
        trainer.state.step += 1
        trainer._save(nats, whole)
    trainer.close()
    kept = checkpoints(own.train_folder)
    assert [(c.step, c.is_whole) for c in kept] == [(31, True), (32, True), (34, False), (35, False), (36, False)]
    assert read_metadata(own.model_path)["step"] == "32"
    TrainedRun.load(own, torch.device("cpu"))
    again = Trainer.resume(own)
    assert again.state.step == 36
    assert [report.step for report in again.steps(stop=lambda: True)] == []
    assert read_metadata(own.model_path)["step"] == "36", "stopped, it leaves what others read"


def test_validations_write_samples_that_begin_with_the_prompt(tmp_path: Path, vocab_run: Run, corpus_path: Path) -> None:
    run = Run(shutil.copytree(vocab_run.folder, tmp_path / "run"))
    sets = ["--set", "recipe.sample_prompt=def f", "--set", "recipe.sample_tokens=5", "--steps", "4"]
    done = engram("train", "--preset", "nano", *sets, "--corpus", corpus_path, "--run", run.folder)
    assert done.returncode == 0, done.stderr
    samples = [line["sample"] for line in lines(run) if "sample" in line]
    assert len(samples) == 2
    assert all(sample.startswith("def f") for sample in samples)
    assert len(run.tokenizer().encode(samples[-1]).ids) >= len(run.tokenizer().encode("def f").ids)
    assert f"writes: {samples[-1]!r}" in done.stderr


def test_a_killed_training_resumes_and_says_how(own: Run) -> None:
    """A crash, as the system sees it: the process is gone between two steps."""
    with engram_process("train", "--resume", "--steps", "100000", "--run", own.folder) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step "):
                break
        time.sleep(1)
        os.kill(process.pid, signal.SIGKILL)
    done = document("train", "--resume", "--steps", "40", "--run", own.folder)
    assert [line["step"] for line in lines(own)] == list(range(1, done["steps"] + 1))


def test_a_changed_recipe_that_is_none_is_refused(own: Run) -> None:
    before = own.config_path.read_bytes()
    with pytest.raises(UsageError):
        Trainer.resume(own, steps=None)
    refused(engram("train", "--resume", "--steps", "50", "--minutes", "1", "--run", own.folder), 2, "both given")
    refused(engram("train", "--resume", "--minutes", "nan", "--run", own.folder), 2, "minutes")
    assert own.config_path.read_bytes() == before


def test_plot_draws_runs_side_by_side_and_says_where_they_end(own: Run, trained_run: Run, tmp_path: Path) -> None:
    engram("train", "--resume", "--steps", "35", "--run", own.folder)
    picture = tmp_path / "loss.png"
    found = document("plot", own.folder, trained_run.folder, "--out", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [end["steps"] for end in found["runs"]] == [35, 30]
    last = [line["validation_nats"] for line in lines(own) if "validation_nats" in line][-1]
    assert found["runs"][0]["validation_nats"] == last
    refused(engram("plot", own.folder, "--out", picture), 1, "already there")
    refused(engram("plot", tmp_path / "none", "--out", picture), 1, "has no train")
    refused(engram("plot", own.folder, "--out", tmp_path / "loss.gif"), 2, "unknown format")
    refused(engram("plot", tmp_path / "none", "--out", tmp_path / "x.svg"), 1, "has no train")


def test_metrics_of_the_version_before_can_be_drawn_and_extended(own: Run, tmp_path: Path) -> None:
    """They have no clock, and their checkpoints no progress."""
    plain = [{k: v for k, v in line.items() if k in {"step", "loss_nats", "tokens_per_sec"}} for line in lines(own)]
    Metrics(own.train_folder).path.write_text("".join(json.dumps(line) + "\n" for line in plain))
    for checkpoint in checkpoints(own.train_folder):
        (checkpoint.folder / "progress.json").unlink()
    assert document("plot", own.folder, "--out", tmp_path / "old.svg")["runs"][0]["steps"] == 30
    assert document("train", "--resume", "--steps", "32", "--run", own.folder)["steps"] == 32
