"""Shell completion, in the shells themselves: the script that `engram` prints is sourced, and its function asked."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.modules import loaded_by
from tests.programs import program

COMPLETING = """
import os
from engram_cli.main import main

os.environ |= {"_ENGRAM_COMPLETE": "complete_bash", "COMP_WORDS": "engram tr", "COMP_CWORD": "1"}
try:
    main([])
except SystemExit as ended:
    assert not ended.code
"""
CASES = [
    ("engram tr", {"train"}),
    ("engram in", {"inspect"}),
    ("engram inspect n", {"ngram"}),
    ("engram stats m", {"merge"}),
    ("engram stats --ba", {"--base"}),
    ("engram train --res", {"--resume"}),
    ("engram generate x --placement d", {"device", "disk"}),
]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell in which `engram` is a command, and that finds no configuration but its own."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "engram"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m engram_cli.main "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    return {**{k: v for k, v in os.environ.items() if not k.startswith("_")}, **own}


def said(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash(shell: dict[str, str], line: str, expected: set[str]) -> None:
    words = " ".join(f"'{word}'" for word in line.split())
    script = f"""
        source <(_ENGRAM_COMPLETE=source_bash engram)
        COMP_WORDS=({words}) COMP_CWORD={len(line.split()) - 1}
        "$(complete -p engram | sed 's/.*-F \\([^ ]*\\).*/\\1/')" engram
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert set(said(["bash", "--norc", "-c", script], shell).split()) == expected


@pytest.mark.parametrize(("line", "expected"), CASES[::3])
def test_zsh(shell: dict[str, str], line: str, expected: set[str]) -> None:
    """The function is asked with `_arguments` in the place of zsh's own, which only works at a prompt."""
    program("zsh")
    script = f"""
        compdef() {{ }}
        _arguments() {{ print -rl -- "$@" }}
        eval "$(_ENGRAM_COMPLETE=source_zsh engram)"
        words=({line}) CURRENT={len(line.split())}
        _engram_completion
    """
    shown = said(["zsh", "-f", "-c", script], shell)
    assert set(re.findall(r'(?<!:)"([^"]*)"', shown)) == expected  # "value":"what its help says"


@pytest.mark.parametrize(("line", "expected"), CASES[::3])
def test_fish(shell: dict[str, str], line: str, expected: set[str]) -> None:
    program("fish")
    script = f"_ENGRAM_COMPLETE=source_fish engram | source; complete -C '{line}'"
    shown = said(["fish", "--no-config", "-c", script], shell)
    assert {row.split("\t")[0] for row in shown.splitlines()} == expected


@pytest.mark.parametrize(
    ("name", "kept"), [("bash", ".bashrc"), ("zsh", ".zfunc/_engram"), ("fish", ".config/fish/completions/engram.fish")]
)
def test_it_installs_itself_into_the_shell_that_asks(shell: dict[str, str], tmp_path: Path, name: str, kept: str) -> None:
    program(name)
    shown = said([name, "-c", "engram --install-completion; true"], shell)
    assert f"{name} completion installed in" in shown
    assert "engram" in (tmp_path / kept).read_text()
    assert "_ENGRAM_COMPLETE" in said([name, "-c", "engram --show-completion; true"], shell)


def test_a_key_press_loads_little() -> None:
    assert loaded_by(COMPLETING) & {"torch", "numba", "zarr", "numpy", "pyarrow", "tokenizers", "fastapi"} == set()
