"""docs/sweep.md: its blocks run, and what it names exists."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from engram_cli.sweep_plots import plot_sweep
from runtime.sweep.arms import SWEEPS, arms_of
from runtime.train.choice import chosen_settings
from tests.commands import ROOT, engram
from tests.sweeps import make_material

PAGE = (ROOT / "docs" / "sweep.md").read_text()
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
NO_LARGE_TABLES = "--set memory.head_dim=1"


@pytest.mark.parametrize("block", BLOCK.findall(PAGE), ids=["controls", "rows"])
def test_a_block_does_what_it_says(tmp_path: Path, corpus_path: Path, block: str) -> None:
    line, _, shown = block.removeprefix("$ ").partition("\n")
    shutil.copy(corpus_path, tmp_path / "notes.txt.jsonl")
    small = {"--seeds 5 --steps 1200": "--preset nano --seeds 1 --steps 3 --corpus notes.txt", "--seeds 2": "--seeds 1"}
    for long, short in small.items():
        line = line.replace(long, short)
    line = line.replace("--steps 200", f"--steps 3 {NO_LARGE_TABLES}").replace("notes.txt", "notes.txt.jsonl")
    out = tmp_path / (re.findall(r"--out (\S+)", line) or [f"sweeps/{line.split()[2]}"])[0]
    out.mkdir(parents=True)
    make_material(out / "material", corpus_path)
    done = engram(*shlex.split(line)[1:], "--other-domain", "notes.txt.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for expected in shown.splitlines():
        assert re.search(re.sub(r"(\\ )+", r"\\s+", re.escape(expected)).replace("…", ".*"), done.stdout), (
            expected,
            done.stdout,
        )
    report = json.loads((out / "report.json").read_text())
    assert report["command"].startswith(" ".join(line.split()[:3]))
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("runs/*/seed-0/"))  # no model is kept
    assert all((out / "arms" / f"{arm['name']}.toml").exists() for arm in report["arms"])
    again = engram(*shlex.split(line)[1:], "--other-domain", "notes.txt.jsonl", "--json", cwd=tmp_path)
    assert {**json.loads(again.stdout), "command": ""} == {**report, "command": ""}


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
