"""`engram demo`: what it did not make it leaves alone, what was interrupted it goes on with, and what it replaces is whole."""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from engram_cli.demo import CONTROL, Command, Demo, _trained
from runtime.run import Run
from tests.commands import ROOT, engram, engram_process, refused
from tests.interruptions import Kind, interrupted, operations
from tests.runs import content

FEW_FILES = 6
TRIED = 20  # operations, at even distances


@pytest.fixture
def small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the processes that a test starts, the standard library's source is a few of its files."""
    library, site = tmp_path / "library", tmp_path / "site"
    library.mkdir()
    site.mkdir()
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:FEW_FILES]:
        shutil.copy(file, library)
    own = f"lambda name, *rest, **more: {str(library)!r} if name == 'stdlib' else theirs(name, *rest, **more)"
    (site / "sitecustomize.py").write_text(f"import sysconfig\ntheirs = sysconfig.get_path\nsysconfig.get_path = {own}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))


def made(folder: Path, trained: Run, steps: int) -> Path:
    """What a demo leaves, with a model of another training in the place of each of its two."""
    shutil.copytree(trained.folder, folder, dirs_exist_ok=True)
    shutil.copytree(trained.folder, folder / CONTROL)
    Demo(folder, {"steps": steps})._write()
    return folder


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_a_run_that_it_did_not_make_is_refused(trained_run: Run, options: list[str]) -> None:
    before = content(trained_run)
    done = engram("demo", "--steps", "2", *options, "--run", trained_run.folder)
    refused(done, 1, "config.json, which engram demo did not make\nhint: name another place")
    assert content(trained_run) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "0"], "--minutes is 0, expected above 0"),
        (["--minutes", "nan"], "--minutes is nan, expected above 0"),
        (["--minutes", "inf"], "--minutes is inf"),
        (["--minutes", "1", "--steps", "9"], "--steps and --minutes are both given"),
        (["--steps", "0"], "found 0, expected at least 1"),
    ],
)
def test_a_length_that_is_none_is_refused_before_anything_is_built(tmp_path: Path, options: list[str], message: str) -> None:
    refused(engram("demo", *options, "--run", tmp_path / "run"), 2, message)
    assert not (tmp_path / "run").exists()


def test_a_demo_of_another_length_or_trained_again_is_refused(trained_run: Run, tmp_path: Path) -> None:
    run = made(tmp_path / "run", trained_run, 30)
    refused(engram("demo", "--steps", "31", "--run", run), 1, "was of 30 steps a training\nhint: --force makes another")
    refused(engram("demo", "--run", run), 1, "was of 30 steps a training")
    assert engram("train", "--resume", "--steps", "32", "--run", run).returncode == 0
    for force in ([], ["--force"]):
        refused(engram("demo", "--steps", "30", *force, "--run", run), 1, "is not the demo's: it was trained again")


@pytest.mark.usefixtures("small_library")
def test_a_killed_demo_goes_on_where_it_was(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with engram_process("demo", "--steps", "1", "--run", run, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if line.startswith("step 0"))
        os.killpg(process.pid, signal.SIGKILL)
    assert said
    vocab = (run / "vocab.parquet").read_bytes()
    with ExitStack() as place:
        show = Demo.begin(place, run, {"steps": 1}, force=False)
        assert sorted(show.done) == ["build-vocab", f"{CONTROL}: build-vocab"]
        show.train()
    assert (run / "vocab.parquet").read_bytes() == vocab
    again = Demo.begin(ExitStack(), run, {"steps": 1}, force=False)
    assert again.done == show.done
    for name in ("train", f"{CONTROL}: train"):
        assert again.done[name]["steps"] == 1
    for folder in (run, run / CONTROL):
        lines = (folder / "train" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1]
    assert Run(run).config().precision == Run(run / CONTROL).config().precision
    again.train()  # nothing is left to do


def test_the_control_is_computed_in_the_numbers_of_what_it_is_the_control_of(trained_run: Run, tmp_path: Path) -> None:
    show = Demo(made(tmp_path / "run", trained_run, 30), {"steps": 30})
    assert trained_run.config().precision == "float32"
    assert show._precision() == "float32"


def test_ctrl_c_while_a_command_of_the_demo_starts_is_told_in_a_sentence(tmp_path: Path) -> None:
    """It comes before Python has read its own modules, and is held back until the command can say so."""
    with Command("build-vocab", [], tmp_path / "run").start(1, stderr=subprocess.PIPE) as process:
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert (process.returncode, said) == (130, "error: interrupted\n")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="a process's children are read from /proc")
def test_a_demo_that_is_interrupted_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    """Also where a command of it had done its work, and was only ending."""
    with engram_process("demo", "--run", "run", cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        assert next(line for line in process.stderr if line.startswith("$ engram build-vocab"))
        os.kill(process.pid, signal.SIGINT)  # the demo alone
        time.sleep(0.2)
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.endswith(
        "error: the demo was interrupted\nhint: the same command goes on from there, or with --force begins again\n"
    )


def test_the_summary_has_the_control_beside_what_is_none(trained_run: Run, tmp_path: Path) -> None:
    show = Demo(made(tmp_path / "run", trained_run, 30), {"steps": 30})
    figures = {"steps": 30, "elapsed_sec": 2.0, "standard_error_nats": 0.01}
    show.done["build-vocab"] = {"tokens": 512, "canonical": 400, "reduction_percent": 21.9}
    show.done["train"] = figures | {"validation_nats": 3.0, "suppressed_nats": 4.5}
    show.done[f"{CONTROL}: train"] = figures | {"validation_nats": 3.25, "suppressed_nats": None}
    facts = dict(_trained(show.folder, show))
    assert facts["trained with the memory"] == "3.000 ± 0.010 nats/token, 30 steps in 2 s"
    assert facts["trained without, in equal time"] == "3.250 ± 0.010 nats/token, 30 steps in 2 s"
    assert facts["the memory is worth"].startswith("0.250 nats/token")
    assert facts["memory suppressed (no control)"] == "4.500 nats/token"


@pytest.mark.parametrize("kind", ["SIGKILL", "Ctrl-C"])
def test_a_demo_that_is_replaced_is_the_old_one_whole_or_the_new_one_whole(
    tmp_path: Path, trained_run: Run, vocab_run: Run, kind: Kind
) -> None:
    """The new one is of other files: its control is not trained yet."""
    run = made(tmp_path / "old", trained_run, 30)
    old = content(Run(run))

    def replace(folder: Path) -> None:
        with ExitStack() as place:
            show = Demo.begin(place, folder, {"steps": 7}, force=True)
            shutil.copytree(trained_run.folder, show.folder, dirs_exist_ok=True)
            shutil.copytree(vocab_run.folder, show.folder / CONTROL)
            show._write()

    fresh = shutil.copytree(run, tmp_path / "fresh")
    count = operations(lambda: replace(fresh), fresh)
    new, found = content(Run(fresh)), set()
    assert new != old
    assert count > TRIED
    for number in range(TRIED):
        folder = shutil.copytree(run, tmp_path / str(number))
        interrupted(partial(replace, folder), folder, 1 + number * count // TRIED, kind)
        left = content(Run(folder))
        assert left in (old, new), f"operation {1 + number * count // TRIED} of {count}"
        found.add(left == new)
        shutil.rmtree(folder)
    assert False in found
