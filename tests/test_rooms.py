"""The rooms' arrows point one way, and help is light."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "hashing": {"torch", "zarr", "table", "runtime", "engram_cli"},
    "table": {"torch", "runtime", "engram_cli"},
    "runtime": {"engram_cli"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_rooms_to_its_left(room: str) -> None:
    modules = list((ROOT / room).rglob("*.py"))
    assert len(modules) > 2
    assert {str(m.relative_to(ROOT)): found for m in modules if (found := imported(m) & FORBIDDEN[room])} == {}


@pytest.mark.parametrize("module", ["hashing.vocab", "hashing.hasher", "table.verify", "table.store.gather", "runtime.run"])
def test_importing_left_rooms_does_not_load_torch(module: str) -> None:
    assert loaded_by(f"import {module}") & {"torch"} == set()


def test_help_loads_neither_torch_nor_numba_nor_zarr() -> None:
    script = "import sys; sys.argv = ['engram', '--help']\nfrom engram_cli.main import app\napp(standalone_mode=False)"
    assert loaded_by(script) & {"torch", "numba", "zarr", "numpy", "fastapi"} == set()


def loaded_by(script: str) -> set[str]:
    code = f"{script}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
