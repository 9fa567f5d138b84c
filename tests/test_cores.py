"""The cores that threads are started for are those that the process may use, and nobody counts them twice."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hashing.base.cores import part_of_cores, whole_cores
from hashing.hasher import Hasher
from hashing.named_specs import named_spec
from table.encodings.encoding import ENCODINGS
from table.store.gather import Table


def test_a_process_held_to_one_core_counts_one() -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{core}]); from hashing.base.cores import CORES; print(CORES)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize("of", [1, 2, 5])
def test_parts_of_the_cores_are_shared_out(of: int) -> None:
    """Every process counts its part, one core at least, and may then run on all of them."""
    before, code = os.sched_getaffinity(0), "import os; print(*os.sched_getaffinity(0))"
    parts = []
    for index in range(of):
        with part_of_cores(index, of) as cores:
            done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        parts.append(set(map(int, done.stdout.split())))
        assert cores == before == os.sched_getaffinity(0)
    assert set().union(*parts) == before if of <= len(before) else all(len(part) == 1 for part in parts)
    assert sum(map(len, parts)) == max(of, len(before))


def test_a_small_call_asks_the_system_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting the cores takes half of the time in which a token is hashed, and longer than gathering its rows."""
    hasher = Hasher(named_spec("engram-demo").bare_spec())
    table = Table(np.zeros((4, 256), np.uint8), ENCODINGS["float32"], 64)

    def refuse(*_: object) -> int:
        raise AssertionError("the system was asked for the number of cores")

    for name in ("cpu_count", "sched_getaffinity"):
        monkeypatch.setattr(os, name, refuse)
    assert hasher.rows(1, np.zeros((1, 1), np.int64)).shape == (1, 1, 16)
    assert table.gather(np.zeros(16, np.int64)).shape == (16, 64)


@pytest.mark.parametrize(("share", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None)])
def test_a_container_s_share_of_time_is_counted(tmp_path: Path, share: str, expected: int | None) -> None:
    cores = len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text(share)
    assert whole_cores(tmp_path / "cpu.max") == (expected or cores)
    assert whole_cores(tmp_path / "absent") == cores
    (tmp_path / "cpu.max").write_text(f"{cores * 150_000} 100000")
    assert whole_cores(tmp_path / "cpu.max") == cores
