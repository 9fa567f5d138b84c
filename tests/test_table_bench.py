"""The benchmarks measure what they say, at small size; the figures themselves are for the documentation."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engram_cli.bench.gather_speed import make_tables
from table.checkpoints.family import read_checkpoint


def bench(*arguments: object) -> dict[str, object]:
    command = [sys.executable, "-m", "engram_cli.main", "bench", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_gather_s_benchmark(tmp_path: Path) -> None:
    found = bench("gather", "--table-mib", 16, "--rows", 4096, "--cold-rows", 64, "--folder", tmp_path)
    warm, cold = found["warm_rows_per_sec"], found["cold_rows_per_sec"]
    assert isinstance(warm, dict)
    assert isinstance(cold, dict)
    assert {"engram", "engram_fp8", "index_select", "index_select_into"} <= set(warm)
    assert found["times_index_select"] == pytest.approx(warm["engram"] / warm["index_select"])
    assert min(*warm.values(), *cold.values()) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_tables_it_compares_are_the_same(tmp_path: Path) -> None:
    store, fp8 = make_tables(tmp_path, 8 << 20)
    rows = np.arange(store.table(1).rows)
    assert store.row_bytes == 256
    assert store.total_bytes == pytest.approx(8 << 20, rel=0.1)
    assert np.allclose(fp8.table(1).gather(rows), store.layer(1), rtol=0.0626, atol=0.01)


def test_the_copying_benchmark(tmp_path: Path) -> None:
    found = bench("table", "--checkpoint-mib", 64, "--folder", tmp_path)
    rates = found["bytes_per_sec"]
    assert isinstance(rates, dict)
    assert set(rates) == {"cp", "import", "export", "read", "verify"}
    assert found["verify_times_read"] == pytest.approx(rates["verify"] / rates["read"])
    assert list(tmp_path.iterdir()) == []


def test_its_checkpoint_is_a_true_one(tmp_path: Path) -> None:
    from engram_cli.bench.copy_speed import make_checkpoint

    size = make_checkpoint(tmp_path / "in", 4 << 20)
    checkpoint = read_checkpoint(tmp_path / "in")
    assert checkpoint.faults == ()
    assert checkpoint.total_bytes == size
