"""Every command that is registered has help, examples that parse and a place in the README, and refuses wrong calls alike."""

import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from engram_cli.main import app
from runtime.run import Run
from tests.commands import ROOT, engram, refused
from tests.modules import loaded_by

Words = tuple[str, ...]
README = (ROOT / "README.md").read_text()
HELP_OF_ALL = """
from engram_cli.main import main

for command in {commands}:
    try:
        main([*command, "--help"])
    except SystemExit as ended:
        assert not ended.code
"""

CALL = """
from engram_cli.main import main

try:
    main({command})
except SystemExit as ended:
    assert not ended.code
"""


def leaves(command: Any, words: Words = ()) -> dict[Words, Any]:
    """The commands that do something, by the words that name them."""
    below = getattr(command, "commands", None)
    if below is None:
        return {words: command}
    return {name: leaf for word, child in below.items() for name, leaf in leaves(child, (*words, word)).items()}


COMMANDS = sorted(leaves(get_command(app)))


def meant(arguments: list[str]) -> list[Words]:
    """The commands that a call comes to, with every option parsed and nothing run."""
    tree: Any = get_command(app)
    called: list[Words] = []
    for words, leaf in leaves(tree).items():
        leaf.callback = lambda words=words, **_: called.append(words)
    tree.main(arguments, prog_name="engram", standalone_mode=False)
    return called


def named_in_the_readme() -> set[Words]:
    """Every command in a code span or at the start of a line; "`engram table create` · `info`" names two."""
    found = set()
    for line in README.splitlines():
        group: Words = ()
        for span in [line, *re.findall("`([^`]+)`", line)]:
            words = span.split()
            if words[:1] == ["engram"]:
                group = tuple(words[1:2]) if len(words) > 2 else ()
                found |= {tuple(words[1:2]), tuple(words[1:3])}
            elif group and span is not line:
                found.add((*group, *words[:1]))
    return found


def test_there_are_commands() -> None:
    assert {("build-vocab",), ("train",), ("serve",), ("inspect", "ngram"), ("stats", "report")} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_its_help_has_examples_that_come_to_it(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    done = engram(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    examples = re.findall(r"Example: engram (.*?)\s*$", done.stdout, re.MULTILINE)
    assert len(examples) >= 2
    assert [meant(shlex.split(example)) for example in examples] == [[words]] * len(examples)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_readme_names_it(words: Words) -> None:
    assert words in named_in_the_readme()


def test_no_help_loads_torch_numba_or_zarr() -> None:
    assert loaded_by(HELP_OF_ALL.format(commands=[(), *COMMANDS])) & {"torch", "numba", "zarr", "numpy", "fastapi"} == set()


@pytest.mark.parametrize(
    ("call", "message", "help_of"),
    [
        ("trian", "no such command 'trian'; did you mean 'train'[?]", ""),
        ("table imprt x", "no such command 'imprt'; did you mean 'import'[?]", "table "),
        ("inspect xyz", "no such command 'xyz'", "inspect "),
        ("--colour", "no such option: --colour", ""),
        ("stats repotr", 'no command and no file is called "repotr"; did you mean report[?]', "stats "),
        ("stats novel", 'no command and no file is called "novel"', "stats "),
        ("train --stepz 3", "no such option: --stepz .*--steps.*", "train "),
        ("hash", "missing argument 'text'", "hash "),
        ("table convert a.zarr --out b.zarr", "missing option '--encoding'", "table convert "),
        ("hash a b", "got unexpected extra argument.*b.*", "hash "),
        ("train --steps", "option '--steps' requires an argument", "train "),
        ("train --json=yes", "option '--json' does not take a value", "train "),
        ("train --steps many", "invalid value for '--steps': found many, expected an integer", "train "),
        ("train --steps=0", "invalid value for '--steps': found 0, expected at least 1", "train "),
        ("generate x --top-p 3", "invalid value for '--top-p': found 3, expected at most 1", "generate "),
        ("plan --tokens-per-sec x", "invalid value for '--tokens-per-sec': found x, expected a number", "plan "),
        (
            "generate x --placement moon",
            "invalid value for '--placement': 'moon' is not one of 'device', 'host', 'disk'",
            "generate ",
        ),
        ("stats --cahce 1", "no such option: --cahce.*", "stats "),
    ],
)
def test_a_call_that_cannot_be_parsed(call: str, message: str, help_of: str, tmp_path: Path) -> None:
    done = engram(*call.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: {message}\nhint: engram {help_of}--help\n", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group", [(), ("table",), ("inspect",), ("bench",)], ids=" ".join)
def test_a_group_alone_shows_its_help(group: Words) -> None:
    done = engram(*group)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.strip() == engram(*group, "--help").stdout.strip()


@pytest.mark.parametrize("words", [(), ("stats",), *COMMANDS], ids=" ".join)
def test_h_is_help(words: Words) -> None:
    done = engram(*words, "-h")
    assert (done.returncode, done.stdout) == (0, engram(*words, "--help").stdout)


def test_version_is_that_of_the_package() -> None:
    done = engram("--version")
    assert (done.returncode, done.stdout) == (0, f"engram {version('engram-tables')}\n")


def test_our_own_usage_errors_look_the_same(tmp_path: Path) -> None:
    refused(engram("plan", "--spec", "none", cwd=tmp_path), 2, '^error: no spec is called "none"\nhint: the names are')


def test_table_info_loads_nothing_compiled(trained_run: Run) -> None:
    call = ["table", "info", "--run", str(trained_run.folder)]
    loaded = loaded_by(CALL.format(command=call))
    assert loaded & {"torch", "numba", "zarr", "pyarrow", "tokenizers", "fastapi", "matplotlib"} == set()
