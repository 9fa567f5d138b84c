"""The blocks of docs/scale.md, run in order on a small corpus, those for several machines with two workers on this one."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hashing.ngrams.counts import NgramCounts
from runtime.run import Run
from tests.commands import ROOT, engram
from tests.corpora import MODULES
from tests.processes import assert_none_left

PAGE = (ROOT / "docs" / "scale.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, vocab_run: Run) -> Path:
    """A run where the page has it, and the corpus it names."""
    shutil.copytree(vocab_run.folder, tmp_path / "runs" / "demo")
    (tmp_path / "texts").mkdir()
    for module in MODULES:
        shutil.copy(module.__file__ or "", tmp_path / "texts")
    return tmp_path


def test_the_counts_of_both_ways_are_those_of_one_process(folder: Path) -> None:
    alone = engram("stats", "texts", "--run", "runs/demo", "--counts", "alone.parquet", "--json", cwd=folder)
    assert alone.returncode == 0, alone.stderr

    commands = [line for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.split("$ ")[1:]]
    assert len(commands) == 1
    told = engram(*shlex.split(commands[0])[1:], "--json", cwd=folder)
    assert (told.returncode, told.stdout) == (0, alone.stdout), told.stderr
    counts = folder / "runs" / "demo" / "ngrams.parquet"
    assert counts.read_bytes() == (folder / "alone.parquet").read_bytes()
    counts.unlink()

    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / "count.py").write_text(block)
    command, environment = [sys.executable, "-W", "error", "count.py"], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True) as script:
        try:
            assert script.wait(timeout=180) == 0
        finally:
            script.kill()
    assert_none_left(script.pid)
    assert NgramCounts.open(counts).source is None
    assert pq.read_table(counts).equals(pq.read_table(folder / "alone.parquet"))
    assert engram("stats", "--run", "runs/demo", "--json", cwd=folder).stdout == alone.stdout


def test_blocks_that_are_not_run_say_why() -> None:
    others = re.findall(r"(.*)\n```bash\n", PAGE)
    assert others
    assert all(re.search(r"not run here: .*tests/\w+\.py", line) for line in others)


def test_what_the_page_names_exists() -> None:
    helps = "".join(engram(*command.split(), "--help").stdout for command in ("stats report", "serve", "train"))
    assert {option for option in re.findall(r"`(--[a-z-]+)", PAGE) if option not in helps} == set()
