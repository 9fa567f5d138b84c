"""What the README says is what the repository has and does."""

import re
from pathlib import Path

import pytest

from runtime.run import Run
from tests.commands import engram
from tests.documents import run_python

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ROOMS = ("hashing", "table", "runtime", "engram_cli")


def blocks(language: str) -> list[str]:
    """Fenced blocks that are not marked, in the line before, with why no test runs them."""
    pattern = re.compile(rf"(?P<before>[^\n]*)\n\n?```{language}\n(?P<block>.*?)```", re.DOTALL)
    return [m["block"] for m in pattern.finditer(README) if not m["before"].startswith("<!-- not run:")]


def test_the_map_has_a_line_for_every_file() -> None:
    tracked = {
        f"{room}/{path.relative_to(ROOT / room)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    mapped = set(re.findall(r"^\| `([a-z_]+/[a-z0-9_/]+\.py)` \| \S", README, re.MULTILINE))
    assert mapped == tracked
    assert len(mapped) > 20


def test_python_blocks_run(trained_run: Run) -> None:
    found = blocks("python")
    assert found
    for block in found:
        script = block.replace("runs/demo", str(trained_run.folder))
        printed = run_python(script, {"__name__": "__main__"}, ROOT)
        expected = re.findall(r"# → (.*)", block)
        for shown in expected:
            assert re.search(shown, printed), (shown, printed)


def test_every_command_named_has_help_with_two_examples() -> None:
    commands = {tuple(m.split()) for m in re.findall(r"`?engram ((?:inspect |table |bench )?[a-z-]+)", README)}
    assert {("build-vocab",), ("train",), ("serve",), ("inspect", "ngram")} <= commands
    for command in commands:
        done = engram(*command, "--help")
        assert done.returncode == 0, (command, done.stderr)
        is_group = "COMMAND [ARGS]" in done.stdout
        assert is_group or done.stdout.count("Example: engram") >= 2, command


@pytest.mark.parametrize("target", ["demo", "test", "check"])
def test_make_targets_that_the_readme_names_exist(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
