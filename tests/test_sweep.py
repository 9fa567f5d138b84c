"""A sweep that is killed or interrupted and continued comes to what an undisturbed one comes to."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hashing.base.errors import EngramError
from runtime.run import Run
from runtime.sweep.report import report
from runtime.sweep.step_time import StepTime, measure
from runtime.sweep.sweep import Sweep
from tests.commands import ROOT, engram, engram_process, refused
from tests.sweeps import STEPS, make_material, small_sweep

WAIT_SEC = 120


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, corpus_path: Path) -> Path:
    folder = tmp_path_factory.mktemp("material") / "material"
    make_material(folder, corpus_path)
    return folder


def begun(folder: Path, material: Path, corpus_path: Path, seeds: int = 2) -> Sweep:
    shutil.copytree(material, folder / "material", dirs_exist_ok=True)
    return small_sweep(folder, corpus_path, seeds)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, material: Path, corpus_path: Path) -> Sweep:
    sweep = begun(tmp_path_factory.mktemp("undisturbed"), material, corpus_path)
    assert sweep.run(2, lambda: False)
    return sweep


def found(sweep: Sweep) -> dict[str, Any]:
    """The report and all results, but for what clocks say."""
    results = [sweep.place.result(*job) for job in sweep.jobs]
    content = json.loads(json.dumps([report(sweep), results]))
    for one in [*content[0]["arms"], *content[1]]:
        del one["seconds"]
    return {"report": content[0], "results": content[1]}


def started(folder: Path, corpus_path: Path) -> "subprocess.Popen[bytes]":
    """A process, the first of its group, that runs a sweep with one seed."""
    script = [sys.executable, str(ROOT / "tests" / "sweeps.py"), str(folder), str(corpus_path)]
    return subprocess.Popen(script, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_SEC
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_every_arm_is_trained_with_every_seed(undisturbed: Sweep) -> None:
    results = [undisturbed.place.result(*job) or {} for job in undisturbed.jobs]
    assert [(one["arm"], one["seed"]) for one in results] == [("memory", 0), ("none", 0), ("memory", 1), ("none", 1)]
    assert len({one["nats"] for one in results}) == 4
    assert all(one["steps"] == STEPS and len(one["validations"]) == 4 for one in results)
    for one in results:
        assert ("suppressed_nats" in one) == ("facts_suppressed_percent" in one) == (one["arm"] == "memory")
        assert 0 <= one["reading_percent"] <= 100
    first = Run(undisturbed.place.run_folder("memory", 0))
    assert first.config().recipe.seed == 0
    assert Run(undisturbed.place.run_folder("none", 1)).config().spec is None


def test_trainings_share_the_encoded_corpus(undisturbed: Sweep) -> None:
    own = Run(undisturbed.place.run_folder("none", 1)).train_folder / "tokens" / "train.bin"
    assert own.samefile(undisturbed.place.folder / "material" / "tokens" / "train.bin")


@pytest.mark.parametrize("moment", ["train", "result"])
def test_killed_and_continued_it_comes_to_the_same(
    tmp_path: Path, material: Path, corpus_path: Path, undisturbed: Sweep, moment: str
) -> None:
    sweep = begun(tmp_path, material, corpus_path, seeds=1)
    with started(tmp_path, corpus_path) as process:
        pattern = "runs/*/*/train/step-*[1-9]" if moment == "train" else "runs/*/*.json"
        wait_for(lambda: any(tmp_path.glob(pattern)))
        os.killpg(process.pid, signal.SIGKILL)
    assert sweep.left
    told: list[tuple[str, int]] = []
    assert sweep.run(1, lambda: False, told.append)
    assert 1 <= len(told) <= 2
    assert found(sweep) == found(replace(undisturbed, seeds=range(1)))
    assert not sweep.left


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="a process's children are read from /proc")
def test_trainings_end_when_the_sweep_is_killed(tmp_path: Path, material: Path, corpus_path: Path) -> None:
    """They save first, so that the next call finds none that is still at work."""
    begun(tmp_path, material, corpus_path)
    with started(tmp_path, corpus_path) as process:
        wait_for(lambda: any(tmp_path.glob("runs/*/*/train/metrics.jsonl")))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    assert children
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_more_seeds_add_to_what_is_there(tmp_path: Path, undisturbed: Sweep, corpus_path: Path) -> None:
    shutil.copytree(undisturbed.place.folder, tmp_path, dirs_exist_ok=True)
    sweep = small_sweep(tmp_path, corpus_path, seeds=3)
    assert sweep.left == [("memory", 2), ("none", 2)]


def test_a_training_typed_by_hand_comes_to_the_same(tmp_path: Path, undisturbed: Sweep) -> None:
    folder = undisturbed.place.folder
    material = folder / "material"
    assert engram("build-vocab", material / "tokenizer.json", "--run", tmp_path / "run").returncode == 0
    text = ["--corpus", material / "train.jsonl", "--validation", material / "validation.jsonl"]
    command = ["train", "--config", folder / "arms" / "memory.toml", "--seed", "1", *text, "--run", tmp_path / "run"]
    assert engram(*command).returncode == 0
    lines = map(json.loads, (tmp_path / "run" / "train" / "metrics.jsonl").read_text().splitlines())
    curve = [[line["step"], line["validation_nats"]] for line in lines if "validation_nats" in line]
    assert curve == (undisturbed.place.result("memory", 1) or {})["validations"]


def test_equal_time_is_a_number_of_steps(tmp_path: Path, material: Path, corpus_path: Path) -> None:
    sweep = begun(tmp_path, material, corpus_path)
    measured = measure(sweep.place, "memory")
    assert 0.3 < measured.ratio < 10
    sweep.place.step_time_path.write_text('{"memory_sec": 0.3, "none_sec": 0.2}')
    assert StepTime.load(sweep.place.step_time_path).ratio == pytest.approx(1.5)
    longer = replace(sweep, arms=[sweep.arms[0], replace(sweep.arms[1], name="longer", equal_time=True)])
    longer._write_settings()
    assert sweep.place.settings("longer").recipe.steps == STEPS * 1.5
    assert sweep.place.settings("longer").precision == sweep.place.settings("memory").precision


def test_a_failed_training_is_told_in_a_sentence(tmp_path: Path, material: Path, corpus_path: Path) -> None:
    sweep = begun(tmp_path, material, corpus_path, seeds=1)
    (tmp_path / "material" / "tokens" / "tokens.json").write_text("{}")
    with pytest.raises(EngramError, match=r"-seed-0 failed: .*tokens.json") as told:
        sweep.run(1, lambda: False)
    assert Path(told.value.hint.split()[0]).exists()


def test_another_sweep_in_the_folder_is_refused(undisturbed: Sweep, corpus_path: Path) -> None:
    call = ["sweep", "controls", "--preset", "nano", "--out", undisturbed.place.folder, "--corpus", corpus_path]
    refused(engram(*call, "--other-domain", corpus_path), 1, "holds a sweep of other settings\nhint: go on with it by")
    refused(engram(*call[:1], "rows", *call[2:]), 1, "holds the sweep controls\nhint: go on")


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (["contrls"], 2, 'no sweep is called "contrls"\nhint: the names are controls, allocation'),
        (["rows", "--set", "memory=none"], 2, "leave the memory out"),
        (["rows", "--set", "recipe.minutes=3", "--set", "recipe.steps=none"], 2, "found minutes"),
        (["rows", "--seeds", "0"], 2, "found 0, expected at least 1"),
        (["rows", "--workers", "0"], 2, "found 0, expected at least 1"),
        (["rows", "--corpus", "nowhere.txt"], 1, "no such file or folder: nowhere.txt"),
        (["rows", "--set", "model.block=3"], 2, "no setting 'model.block'"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(tmp_path: Path, call: list[str], code: int, message: str) -> None:
    refused(engram("sweep", *call, cwd=tmp_path), code, message)
    assert not list(tmp_path.glob("sweeps/*/material"))


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, material: Path, corpus_path: Path) -> None:
    shutil.copytree(material, tmp_path / "out" / "material")
    options = ["--preset", "nano", "--steps", "5000", "--corpus", corpus_path, "--other-domain", corpus_path, "--workers", "1"]
    with engram_process("sweep", "rows", *options, "--out", "out", cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: any(tmp_path.glob("out/runs/none/seed-0/train/metrics.jsonl")))
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate()[1]
    assert process.returncode == 130, said
    assert said.endswith("error: interrupted; every training is saved\nhint: the same command goes on from there\n")
    assert any((tmp_path / "out" / "runs" / "none" / "seed-0" / "train").glob("step-*"))
