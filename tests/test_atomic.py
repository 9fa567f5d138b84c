"""What is written appears whole, by one writer at a time, and a dead writer stands in nobody's way."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hashing.base.atomic import atomic_path, lock_partial, partial_path, write_text
from hashing.base.errors import EngramError


def written(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in sorted(path.rglob("*")) if file.is_file()}


def test_a_second_writer_is_refused_and_takes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "counts.parquet"
    with atomic_path(out) as partial:
        partial.write_text("first")
        with pytest.raises(EngramError, match=r"counts\.parquet is being written by another process") as refused:
            write_text(out, "second")
        assert refused.value.hint == "wait until it has ended"
    assert written(tmp_path) == {"counts.parquet": "first"}
    write_text(out, "second")
    assert written(tmp_path) == {"counts.parquet": "second"}


def test_files_side_by_side_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as a, atomic_path(tmp_path / "b") as b:
        a.write_text("a")
        b.write_text("b")
    assert written(tmp_path) == {"a": "a", "b": "b"}
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


KILLED = """
import os, signal, sys
from pathlib import Path
from hashing.base.atomic import atomic_path
with atomic_path(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    assert written(tmp_path) == {"out.partial/out": "half"}
    write_text(out, "whole")
    assert written(tmp_path) == {"out": "whole"}
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_text(out, "old")

    def write_half() -> None:
        with atomic_path(out) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert written(tmp_path) == {"out": "old"}
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_to_what_is_there_leaves_nothing_behind(tmp_path: Path) -> None:
    """Renaming one name of a file over another of its names does nothing: the first name stays."""
    out, other = tmp_path / "out", tmp_path / "other"
    write_text(other, "same")
    for _ in range(2):
        with atomic_path(out) as partial:
            os.link(other, partial)
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


def test_something_foreign_is_not_removed(tmp_path: Path) -> None:
    partial_path(tmp_path / "a").mkdir()
    (partial_path(tmp_path / "a") / "precious").write_text("mine")
    partial_path(tmp_path / "b").write_text("mine")
    with pytest.raises(EngramError, match="holds precious, which is not replaced"):
        write_text(tmp_path / "a", "")
    with pytest.raises(EngramError, match="is in the way: it is no folder"):
        write_text(tmp_path / "b", "")
    assert written(tmp_path) == {"a.partial/precious": "mine", "b.partial": "mine"}


def test_writers_at_once_are_refused_or_whole(tmp_path: Path) -> None:
    """The lock is taken on the folder that is there, never on one that its writer has just renamed or removed."""
    out = tmp_path / "out"

    def write(number: int) -> int:
        """How many of the writes were refused."""
        refused = 0
        for _ in range(40):
            try:
                write_text(out, str(number) * 1000)
            except EngramError:
                refused += 1
            assert not out.exists() or len(set(out.read_text())) == 1
        return refused

    with ThreadPoolExecutor(3) as threads:
        refusals = list(threads.map(write, range(3)))
    assert sum(refusals) < 120
    assert os.listdir(tmp_path) == ["out"]
    os.close(lock_partial(out, ()))
