"""Writers killed at random moments, or on a full drive: what is left is absent, refused, or goes on to identical bytes.

A child is forked with everything imported and compiled, so that a hundred of them take seconds; its threads start in it. It is
killed after a random share of the time that an undisturbed child takes.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hashing.base.atomic import partial_path, remove
from hashing.base.errors import EngramError
from hashing.named_specs import named_spec
from table.checkpoints.exporter import export
from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore, create_store
from table.verify import verify
from tests.checkpoints import deepseek
from tests.commands import largest_file
from tests.folders import assert_identical

KILLS = 50
SMALL_SHARDS = 1 << 20
Job = Callable[[Path], object]


def create_job(tmp_path: Path) -> Job:
    spec = named_spec("deepseek-v4.1").bare_spec()
    mapping = np.arange(spec.canonical_size, dtype=np.int32)
    assert tmp_path.is_dir()
    return lambda out: create_store(out, spec, mapping, ENCODINGS["e4m3-e8m0"], 256)


def import_job(tmp_path: Path) -> Job:
    folder = deepseek(tmp_path / "in", base=3000).folder

    def job(out: Path) -> object:
        checkpoint = read_checkpoint(folder)
        return Import(checkpoint, checkpoint.encoding).run(out, shard_bytes=SMALL_SHARDS)

    return job


def convert_job(tmp_path: Path) -> Job:
    import_job(tmp_path)(tmp_path / "source.zarr")
    return lambda out: convert(TableStore.open(tmp_path / "source.zarr"), out, ENCODINGS["int8"], shard_bytes=SMALL_SHARDS)


def export_job(tmp_path: Path) -> Job:
    import_job(tmp_path)(tmp_path / "source.zarr")
    return lambda out: export(TableStore.open(tmp_path / "source.zarr"), out)


def start(job: Job, out: Path) -> int:
    """The process id of a child that does the job and ends."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            job(out)
            status = 0
        finally:
            os._exit(status)
    return child


def run(job: Job, out: Path) -> float:
    """Seconds that an undisturbed child takes."""
    began = time.perf_counter()
    assert os.waitstatus_to_exitcode(os.waitpid(start(job, out), 0)[1]) == 0
    return time.perf_counter() - began


def killed(job: Job, out: Path, usual: float, moments: random.Random) -> Iterator[None]:
    """Yields after each of KILLS children that died of it; one that was faster makes the next be killed earlier."""
    deaths = 0
    for _ in range(10 * KILLS):
        child = start(job, out)
        time.sleep(moments.random() * usual)
        os.kill(child, signal.SIGKILL)
        died = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        usual *= 1 if died else 0.9
        if died:
            deaths += 1
            yield
        elif out.exists():
            remove(out)
        if deaths == KILLS:
            return
    pytest.fail(f"only {deaths} of {10 * KILLS} children were killed in time")


JOBS = {"create": create_job, "import": import_job, "convert": convert_job}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("name", JOBS)
def test_a_killed_writer_leaves_nothing_that_passes_for_a_store(tmp_path: Path, name: str) -> None:
    job, moments = JOBS[name](tmp_path), random.Random(name)
    reference, out = tmp_path / "reference.zarr", tmp_path / "t.zarr"
    job(reference)  # compiles what is not yet
    usual = min(run(job, tmp_path / f"timing{i}.zarr") for i in range(3))
    states = set()
    for _ in killed(job, out, usual, moments):
        states.add(state(out))
        if out.exists():
            assert_identical(out, reference)
            out.rename(tmp_path / "done.zarr")
            remove(tmp_path / "done.zarr")
    assert states - {"complete"}
    run(job, out)
    assert_identical(out, reference)
    assert verify(out, full=True).faults == []


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_killed_export_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    job, moments = export_job(tmp_path), random.Random("export")
    reference, out = tmp_path / "timing0", tmp_path / "out"
    usual = min(run(job, tmp_path / f"timing{i}") for i in range(3))
    absent = 0
    for _ in killed(job, out, usual, moments):
        absent += not out.exists()
        if out.exists():
            assert_identical(out, reference)
            remove(out)
    assert absent > 0
    run(job, out)
    assert_identical(out, reference)
    assert not partial_path(out).exists()


def state(out: Path) -> str:
    """Of a killed writer's store; fails the test for one that opens without being complete."""
    partial = partial_path(out)
    if out.exists():
        return "complete"
    if not (partial / "zarr.json").exists():
        return "absent"
    if json.loads((partial / "zarr.json").read_text())["attributes"]["engram"]["complete"]:
        assert verify(partial, full=True).faults == []
        return "complete"
    with pytest.raises(EngramError, match="was not finished"):
        TableStore.open(partial)
    return "unfinished"


def test_an_interrupted_import_keeps_the_shards_that_are_whole(tmp_path: Path) -> None:
    job = import_job(tmp_path)
    job(tmp_path / "reference.zarr")
    written = []

    def interrupt(count: int) -> None:
        written.append(count)
        if len(written) == 4:
            raise KeyboardInterrupt

    checkpoint, out = read_checkpoint(tmp_path / "in"), tmp_path / "t.zarr"
    plan = Import(checkpoint, checkpoint.encoding)
    with pytest.raises(KeyboardInterrupt):
        plan.run(out, interrupt, SMALL_SHARDS)
    shards = {path: path.stat().st_mtime_ns for path in partial_path(out).glob("layers/*/c/*/0")}
    sums = list(partial_path(out).glob("checksums/*/c/*/0"))
    assert len(sums) >= 3
    damaged = partial_path(out) / "layers" / sums[0].relative_to(partial_path(out) / "checksums")
    with damaged.open("r+b") as file:
        file.write(b"damage")
    job(out)
    assert_identical(out, tmp_path / "reference.zarr")
    kept = [path for path in shards if (out / path.relative_to(partial_path(out))).stat().st_mtime_ns == shards[path]]
    assert len(kept) == len(sums) - 1


def test_an_import_of_a_changed_checkpoint_starts_anew(tmp_path: Path) -> None:
    folder = deepseek(tmp_path / "in", base=3000).folder
    checkpoint, out = read_checkpoint(folder), tmp_path / "t.zarr"

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Import(checkpoint, checkpoint.encoding).run(out, interrupt, SMALL_SHARDS)
    remove(folder)
    made = deepseek(folder, base=3000, seed=1)
    changed = read_checkpoint(folder)
    store = Import(changed, changed.encoding).run(out, shard_bytes=SMALL_SHARDS)
    rows = np.arange(store.spec.rows(1))
    assert np.array_equal(store.table(1).gather(rows), made.expected(1, rows))


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    checkpoint = read_checkpoint(deepseek(tmp_path / "in").folder)
    with pytest.raises(EngramError, match=r"needs [\d,]+ bytes, but .* has 1,000,000 free"):
        Import(checkpoint, checkpoint.encoding).run(tmp_path / "t.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


LIMITS = [(name, limit) for name in (*JOBS, "export") for limit in (100, 20_000, 1_500_000)]
LIMITS.remove(("create", 1_500_000))  # a store of zeros has no file as large as that


@pytest.mark.parametrize(("name", "limit"), LIMITS)
def test_a_full_drive_leaves_nothing_that_passes_for_a_store(tmp_path: Path, name: str, limit: int) -> None:
    """A limit on a file's size stands for the drive's end: the write fails with the same class of error."""
    job = {**JOBS, "export": export_job}[name](tmp_path)
    out = tmp_path / "t.zarr"
    with largest_file(limit), pytest.raises(OSError, match="File too large"):
        job(out)
    assert not out.exists()
    assert state(out) in {"absent", "unfinished"}
    job(out)
    assert name == "export" or verify(out, full=True).faults == []
