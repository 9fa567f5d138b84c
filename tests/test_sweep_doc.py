"""docs/sweep.md: its blocks run, and what it names exists."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from engram_cli.sweep_plots import plot_sweep
from runtime.sweep.arms import ROWS, SWEEPS, arms_of
from runtime.sweep.folder import SweepFolder
from runtime.train.choice import chosen_settings
from tests.commands import ROOT, engram
from tests.sweeps import make_material

PAGE = (ROOT / "docs" / "sweep.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
SMALL = "--preset nano --seeds 1 --steps 3 --corpus notes.jsonl"
FIGURES = {"steps": 3, "parameters": 9, "flops_per_token": 6.0, "seconds": 2.0, "bits_per_byte": 1.0, "other_domain_nats": 5.0}
FIGURES |= {f"{kind}_{variant}percent": 5.0 for kind in ("facts", "paraphrase", "reading") for variant in ("", "suppressed_")}


def run_block(block: str, folder: Path, **shorter: str) -> dict[str, Any]:
    """Runs the block's command, with parts of it replaced by shorter ones, and gives the report that it leaves."""
    line, _, shown = block.removeprefix("$ ").partition("\n")
    for long, short in shorter.items():
        line = line.replace(long, short)
    words = [*shlex.split(line)[1:], "--other-domain", "notes.jsonl"]
    done = engram(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    for expected in shown.splitlines():
        pattern = re.sub(r"(\\ )+", r"\\s+", re.escape(expected)).replace("…", ".*")
        assert re.search(pattern, done.stdout), (expected, done.stdout)
    (out,) = (folder / "sweeps").iterdir()
    report = dict(json.loads((out / "report.json").read_text()))
    assert json.loads(engram(*words, "--json", cwd=folder).stdout) == report
    assert sorted(shlex.split(report["command"])) == sorted(["engram", *words])
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert all((out / "arms" / f"{arm['name']}.toml").exists() for arm in report["arms"])
    return report


def prepare(folder: Path, corpus_path: Path, name: str) -> Path:
    shutil.copy(corpus_path, folder / "notes.jsonl")
    out = folder / "sweeps" / name
    out.mkdir(parents=True)
    make_material(out / "material", corpus_path)
    return out


def test_the_first_block_trains_every_arm(tmp_path: Path, corpus_path: Path) -> None:
    out = prepare(tmp_path, corpus_path, "controls")
    report = run_block(BLOCKS[0], tmp_path, **{"--seeds 5 --steps 1200": SMALL})
    assert [arm["steps"] for arm in report["arms"] if arm["name"] != "none-equal-time"] == [3] * 6
    assert not list(out.glob("runs/*/seed-0/"))  # no model is kept


def test_the_second_block_reports_a_slope(tmp_path: Path, corpus_path: Path) -> None:
    """Of trainings that are said to be done: the slope is theirs."""
    out = prepare(tmp_path, corpus_path, "mine")
    for seed in range(2):
        for number, rows in enumerate([0, *ROWS]):
            found = {**FIGURES, "seed": seed, "nats": 4.0 - 0.01 * number + 0.1 * seed, "table_parameters": rows}
            SweepFolder(out).write_result(f"rows-{rows}" if rows else "none", seed, found)
    report = run_block(BLOCKS[1], tmp_path, **{"notes.txt": "notes.jsonl"})
    assert report["slope"]["nats_per_doubling"] == pytest.approx(-0.005, abs=1e-3)


def test_the_page_names_every_sweep_and_what_exists_alone() -> None:
    assert set(re.findall(r"^\| `([a-z]+)` \|", PAGE, re.MULTILINE)) == set(SWEEPS)
    helped = engram("sweep", "--help").stdout
    assert {option for option in re.findall(r"`(--[a-z-]+)", PAGE) if option not in helped} == set()
    arms = {arm.name for name in ("controls", "ablation") for arm in arms_of(name, chosen_settings(preset="tiny"))}
    listed = re.findall(r"`([a-z]+-[a-z]+)`", PAGE)
    assert set(listed) <= arms
    assert len(listed) > 5


def test_an_arm_without_suppression_and_one_seed_can_be_drawn(tmp_path: Path) -> None:
    kinds = {f"{kind}_{variant}percent": None for kind in ("facts", "paraphrase", "reading") for variant in ("", "suppressed_")}
    arm = {"nats": 3.0, "nats_std": None, "other_domain_nats": 4.0, **kinds, "facts_percent": 5.0}
    arm |= {"paraphrase_percent": 6.0, "reading_percent": 7.0}
    for name in SWEEPS:
        arms = [{**arm, "name": one} for one in ("none", "rows-500", "rows-2000")]
        plot_sweep(tmp_path / f"{name}.png", {"name": name, "arms": arms})
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
