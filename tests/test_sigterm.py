"""SIGTERM ends a training as Ctrl-C does: saved, with a sentence and a way to go on, and with an exit code of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.checkpoints import checkpoints
from runtime.run import Run
from tests.commands import ROOT, engram, engram_process
from tests.runs import content

TERMINATED = 143

# A training that gets SIGTERM when it first opens a file of a checkpoint that it is writing.
WHILE_SAVING = """
import os, signal, sys

done = []

def hook(event, arguments):
    if event == "open" and "step-0000034.partial" in str(arguments[0]) and not done:
        done.append(os.kill(os.getpid(), signal.SIGTERM))

from engram_cli.main import main

sys.addaudithook(hook)
main(["train", "--resume", "--steps", "40", "--run", sys.argv[1]])
"""


@pytest.fixture
def own(tmp_path: Path, trained_run: Run) -> Run:
    return Run(shutil.copytree(trained_run.folder, tmp_path / "run"))


def test_it_saves_and_says_how_to_go_on(own: Run) -> None:
    with engram_process("train", "--resume", "--steps", "100000", "--run", own.folder, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("step 30"))
        process.terminate()
        said = process.stderr.read()
    assert process.returncode == TERMINATED, said
    last = checkpoints(own.train_folder)[-1]
    assert f"stopped and saved at step {last.step}, after" in said
    assert said.endswith(f"hint: engram train --resume --run {own.folder} goes on from there\n")
    assert last.is_whole
    assert own.model_path.samefile(last.folder / "model.safetensors")
    assert not list(own.folder.rglob("*.partial"))


def test_while_the_corpus_is_encoded_it_leaves_the_run_as_it_was(own: Run, tmp_path: Path) -> None:
    before, many = content(own), tmp_path / "many"
    many.mkdir()
    for number in range(200):
        (many / f"{number}.txt").write_text(f"{number} bottles of milk on the wall. " * 2000)
    arguments = ("train", "--preset", "nano", "--corpus", many, "--force", "--run", own.folder)
    with engram_process(*arguments, stdout=subprocess.DEVNULL) as process:
        encoding = own.folder / "tokens.partial"
        while not encoding.exists():
            assert process.poll() is None
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == TERMINATED
    assert re.fullmatch(
        r"error: interrupted; (nothing half-written|what was written so far) .*\n(hint: the same command .*\n)?", said
    )
    assert {name: digest for name, digest in content(own).items() if "tokens.partial" not in name} == before


def test_while_a_checkpoint_is_saved_it_is_saved(own: Run, tmp_path: Path) -> None:
    whole = shutil.copytree(own.folder, tmp_path / "whole")
    assert engram("train", "--resume", "--steps", "40", "--run", whole).returncode == 0
    sets = own.config_path.read_text().replace('"checkpoint_steps": null', '"checkpoint_steps": 2')
    own.config_path.write_text(sets)
    done = subprocess.run(
        [sys.executable, "-c", WHILE_SAVING, str(own.folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == TERMINATED, done.stderr
    assert "stopped and saved at step 34" in done.stderr
    assert engram("train", "--resume", "--run", own.folder).returncode == 0
    assert {name: digest for name, digest in content(own).items() if name.startswith("tables.zarr")} == {
        name: digest for name, digest in content(Run(whole)).items() if name.startswith("tables.zarr")
    }
