"""The rooms' arrows, and those of the rooms inside them, point one way; files and functions stay small."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.modules import imported, loaded_by

FORBIDDEN = {
    "hashing": {"torch", "zarr", "table", "runtime", "engram_cli"},
    "table": {"torch", "runtime", "engram_cli"},
    "runtime": {"engram_cli"},
}
RUNTIME = {
    f"runtime{inner}" for inner in ("", ".vectors", ".model", ".setting", ".typed_value", ".config", ".lookup", ".placement")
}
COMMAND_GROUPS = [f"engram_cli.{group}" for group in ("bench", "inspect", "plan", "probe", "stats", "table")]

# A room inside a room, and which of the others within the same room it may import. One that is named as its room stands for
# the modules that lie beside the folders.
ARROWS: dict[str, set[str]] = {
    "hashing.base": set(),
    "hashing.text": {"hashing.base"},
    "hashing": {"hashing.base", "hashing.text"},
    "hashing.ngrams": {"hashing", "hashing.base", "hashing.text"},
    "table.encodings": set(),
    "table.store": {"table.encodings"},
    "table.recoding": {"table.encodings", "table.store"},
    "table.checkpoints": {"table.encodings", "table.store", "table.recoding"},
    "table": {"table.encodings", "table.store", "table.recoding", "table.checkpoints"},
    "runtime.vectors": set(),
    "runtime.model": {"runtime.vectors"},
    "runtime.setting": set(),
    "runtime.typed_value": set(),
    "runtime.config": {"runtime.model", "runtime.setting", "runtime.typed_value"},
    "runtime.lookup": {"runtime.vectors", "runtime.placement"},
    "runtime.placement": {"runtime.vectors"},
    "runtime": RUNTIME - {"runtime"},
    "runtime.plan": RUNTIME,
    "runtime.train": RUNTIME | {"runtime.plan"},
    "runtime.sweep": RUNTIME | {"runtime.train"},
    "runtime.serve": RUNTIME,
    "runtime.inspect": RUNTIME,
    "runtime.inspect.page": RUNTIME | {"runtime.inspect"},
    "runtime.inspect.probes": RUNTIME | {"runtime.inspect"},
    "engram_cli": set(),
    **{group: {"engram_cli"} for group in COMMAND_GROUPS},
    "engram_cli.main": {"engram_cli", *COMMAND_GROUPS},
    "engram_cli.entry": {"engram_cli.main"},
}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
GENERATORS = {"_store_rows"}  # writes a kernel's text, line by line
MODULES = sorted(path for room in (*FORBIDDEN, "engram_cli") for path in (ROOT / room).rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(name: str) -> str | None:
    """The innermost room of a module; None for a module that is in none of ours."""
    rooms = [room for room in ARROWS if name == room or name.startswith(f"{room}.")]
    return max(rooms, key=len, default=None)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The name and the number of lines of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_rooms_to_its_left(room: str) -> None:
    modules = list((ROOT / room).rglob("*.py"))
    assert len(modules) > 2
    left = {str(m.relative_to(ROOT)): {name.split(".")[0] for name in imported(m)} & FORBIDDEN[room] for m in modules}
    assert {name: found for name, found in left.items() if found} == {}


def test_arrows_within_a_room_have_no_circle() -> None:
    assert set(TopologicalSorter(ARROWS).static_order()) == set(ARROWS)
    assert {right: rooms for right, rooms in ARROWS.items() if {r.split(".")[0] for r in rooms} - {right.split(".")[0]}} == {}


def test_every_folder_is_a_room() -> None:
    assert {module(path.parent) for path in MODULES} - set(ARROWS) == set()


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_inside_a_room_imports_only_those_it_may(room: str) -> None:
    own = [path for path in MODULES if room_of(module(path)) == room]
    assert own
    top = room.split(".")[0]
    for path in own:
        others = {inner for name in imported(path) if name.split(".")[0] == top and (inner := room_of(name))}
        assert others - {room} <= ARROWS[room], module(path)


def test_no_file_and_no_function_is_long() -> None:
    assert {module(path): lines for path in MODULES if (lines := len(path.read_text().splitlines())) > LONGEST_FILE} == {}
    long = {(module(path), name): lines for path in MODULES for name, lines in functions(path) if lines > LONGEST_FUNCTION}
    assert {place: lines for place, lines in long.items() if place[1] not in GENERATORS} == {}


def test_importing_left_rooms_does_not_load_torch() -> None:
    """Of runtime, only what says which files a run has."""
    left = [
        module(path) for path in MODULES if path.name != "__init__.py" and module(path).split(".")[0] in {"hashing", "table"}
    ]
    assert {"hashing.vocab", "hashing.hasher", "table.verify", "table.store.gather"} <= set(left)
    assert loaded_by(f"import {', '.join([*left, 'runtime.run'])}") & {"torch"} == set()
