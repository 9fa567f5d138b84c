"""Ctrl-C in the middle of an import, an export and a conversion: one sentence, and nothing lost or half there."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engram_cli.bench.copy_speed import make_checkpoint
from hashing.base.atomic import partial_path, remove
from tests.commands import engram, engram_process
from tests.folders import assert_identical, contents

TRIES = 10
SIZE = 192 << 20  # long enough to be interrupted in its midst, in shards of 64 MiB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and the store imported from it."""
    folder = tmp_path_factory.mktemp("interrupt")
    make_checkpoint(folder / "checkpoint", SIZE)
    finish("import", folder / "checkpoint", "--out", folder / "t.zarr")
    return folder


def finish(*arguments: object) -> None:
    done = engram("table", *arguments)
    assert done.returncode == 0, done.stderr


def interrupt(out: Path, ready: Callable[[], bool], *arguments: object) -> str:
    """What a command says that gets a Ctrl-C as soon as it is `ready`; one that ended before is started again."""
    for _ in range(TRIES):
        command = engram_process("table", *arguments)
        deadline = time.monotonic() + 60
        while not ready() and command.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=60)
        if command.returncode != 0:
            break
        remove(out)
    assert command.returncode == 130, said
    assert said.startswith("error: interrupted; ")
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("verb", ["import", "convert"])
def test_it_goes_on_where_it_stopped(folder: Path, tmp_path: Path, verb: str) -> None:
    source = folder / ("checkpoint" if verb == "import" else "t.zarr")
    out, encoding = tmp_path / "out.zarr", ["--encoding", "e4m3-e8m0" if verb == "import" else "int8"]
    kept = partial_path(out)
    said = interrupt(out, lambda: any(kept.glob("layers/*/c/*/0")), verb, source, "--out", out, *encoding)
    assert said == f"error: interrupted; what was written so far is in {kept}\nhint: the same command goes on from there\n"
    assert not out.exists()
    finish(verb, source, "--out", out, *encoding)
    assert not kept.exists()
    finish("verify", out, "--full")
    if verb == "import":
        assert_identical(out, folder / "t.zarr")


def test_an_export_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    large = partial_path(out) / out.name / "model.safetensors"
    interrupt(out, lambda: large.exists() and large.stat().st_blocks > 0, "export", folder / "t.zarr", "--out", out)
    assert contents(tmp_path) == []
    finish("export", folder / "t.zarr", "--out", out)
    assert_identical(out, folder / "checkpoint")
