"""docs/inspect.md: its commands run, print what it says that they print, and its Python gives what it shows."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from runtime.run import Run
from tests.commands import ROOT, engram
from tests.documents import run_python

PAGE = (ROOT / "docs" / "inspect.md").read_text()
COMMANDS = [command for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for command in block.split("$ ")[1:]]
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def place(trained_run: Run, corpus_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which runs/demo is a small run whose corpus is counted."""
    folder = tmp_path_factory.mktemp("tour")
    shutil.copytree(trained_run.folder, folder / "runs" / "demo")
    assert engram("stats", corpus_path, "--run", "runs/demo", cwd=folder).returncode == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_print_what_it_names(place: Path, command: str) -> None:
    line, _, shown = command.partition("\n")
    done = (
        engram(*shlex.split(line)[1:], "--force", cwd=place) if "--html" in line else engram(*shlex.split(line)[1:], cwd=place)
    )
    assert done.returncode == 0, done.stderr
    places = [done.stdout.replace("\n", " ").find(expected) for expected in shown.splitlines()]
    assert -1 not in places, (shown, done.stdout)


def test_its_python_gives_what_it_shows(place: Path) -> None:
    names = {"__name__": "__main__"}
    for block in PYTHON:
        assert run_python(block, names, place).splitlines() == re.findall(r"# → (.*)", block), block
    assert len(PYTHON) == 2
    assert sum(block.count("# →") for block in PYTHON) == 3


def test_its_pictures_are_there() -> None:
    names = re.findall(r"\]\((pictures/\w+\.png)\)", PAGE)
    assert len(names) == 4
    assert all((ROOT / "docs" / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_its_commands_show_every_view_and_probe() -> None:
    named = {tuple(line.split()[1:3]) for line in COMMANDS}
    groups = {"inspect": ("ngram", "row", "text", "table"), "probe": ("ablate", "lens", "cka", "gates", "swap")}
    assert {(group, name) for group, members in groups.items() for name in members} <= named
