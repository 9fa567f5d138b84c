"""The tables' benchmarks do what they say: the ways agree, sizes are those asked for, documents keep their keys and units."""

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engram_cli.bench.cold_speed import asked_ahead, drop_cache, page_faults, plain_reads
from engram_cli.bench.copy_speed import make_checkpoint, read_all
from engram_cli.bench.gather import bench_gather
from engram_cli.bench.gather_speed import BatchSpeed, copying, fresh_ways, given_ways, make_tables, row_numbers, threads
from engram_cli.bench.table import bench_table
from engram_cli.bench.timing import time_in_turn
from hashing.base.cores import CORES
from hashing.base.errors import UsageError
from table.checkpoints.family import read_checkpoint
from table.store.store import TableStore

TABLE_BYTES = 8 << 20
WAYS = {"engram", "engram_fp8", "numpy_take", "torch_index_select", "torch_embedding"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[TableStore, TableStore]:
    return make_tables(tmp_path_factory.mktemp("bench"), TABLE_BYTES)


def test_the_tables_it_compares_are_the_same(tables: tuple[TableStore, TableStore]) -> None:
    store, fp8 = tables
    rows = np.arange(store.table(1).rows)
    assert (store.row_bytes, fp8.row_bytes) == (256, 66)
    assert store.total_bytes == pytest.approx(TABLE_BYTES, rel=0.1)
    assert np.allclose(fp8.table(1).gather(rows), store.layer(1), rtol=0.0626, atol=0.01)


@pytest.mark.parametrize("count", [1, 48, 1000])
@pytest.mark.parametrize("make", [given_ways, fresh_ways])
def test_every_way_gathers_the_rows_of_its_turn(tables: tuple[TableStore, TableStore], make: Any, count: int) -> None:
    table, fp8 = (store.table(1) for store in tables)
    array = tables[0].layer(1).copy()
    turns = row_numbers(table.rows, count)
    ways = make(table, fp8, array, count)
    assert set(ways) == WAYS
    for name, way in ways.items():
        expected = array[next(turns)[0]]
        found = np.asarray(way())
        assert found.shape == (count, 64)
        assert np.allclose(found, expected, rtol=0.0626, atol=0.01) if name == "engram_fp8" else np.array_equal(found, expected)


def test_every_call_is_given_other_rows_the_same_to_all() -> None:
    turns = row_numbers(100_000, 48)
    drawn = [next(turns) for _ in range(200)]
    assert len(np.unique(np.concatenate([array for array, _ in drawn]))) > 9000
    for array, tensor in drawn:
        assert torch.equal(tensor, torch.from_numpy(array))


def test_the_copy_is_of_as_many_consecutive_rows() -> None:
    array = np.arange(1000, dtype=np.float32)[:, None].repeat(64, axis=1)
    found = np.asarray(copying(array, 48)())
    first = int(found[0, 0])
    assert np.array_equal(found, array[first : first + 48])


def test_a_time_is_compared_with_the_fastest_peer_s() -> None:
    given = {"engram": 3.0, "engram_fp8": 1.0, "numpy_take": 4.0, "torch_index_select": 2.0, "torch_embedding": 8.0}
    speed = BatchSpeed(1000, given, {}, 1.0)
    assert (speed.times_fastest_peer("engram"), speed.times_fastest_peer("engram_fp8")) == (1.5, 0.5)
    assert speed.moved_bytes_per_sec(0.5) == 1000 * 256 * 2 / 0.5


def test_small_calls_are_said_to_use_one_thread() -> None:
    assert threads(1000)["engram"] == threads(1000)["numpy_take"] == 1
    assert threads(1 << 20)["engram"] == CORES
    assert threads(1)["torch_embedding"] == torch.get_num_threads()


def test_ways_take_turns() -> None:
    told: list[str] = []
    ways = {name: lambda name=name: told.append(name) for name in ("a", "b")}  # type: ignore[misc]
    seconds = time_in_turn(ways, rounds=2, calls=3, before=lambda: told.append("-"))
    assert "".join(told) == "-aaa-bbb" * 3  # one round more, to warm up
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_cold_ways_read_the_rows_asked_for(tables: tuple[TableStore, TableStore]) -> None:
    store = tables[0]
    rows = np.random.default_rng(0).integers(0, store.spec.rows(1), 100)
    expected = store.layer(1)[rows]
    assert np.array_equal(asked_ahead(store.table(1), rows), expected)
    assert np.array_equal(page_faults(store.table(1), rows), expected)
    assert plain_reads(store, rows) == len(np.unique(rows * 256 // mmap.PAGESIZE)) * mmap.PAGESIZE


def test_a_dropped_table_is_no_longer_in_memory(tables: tuple[TableStore, TableStore]) -> None:
    os.sync()
    before = tables[0].table(1).resident_bytes()
    drop_cache(tables[0])
    assert tables[0].table(1).resident_bytes() < before / 2


@pytest.fixture
def gathered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, Any]]:
    bench_gather(table_mib=16, rows=[1, 48], rounds=2, cold_rows=64, folder=tmp_path, json=True)
    yield json.loads(capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []


def test_the_document_of_bench_gather(gathered: dict[str, Any]) -> None:
    assert set(gathered) == {"table_bytes", "row_bytes", "batches", "cold_rows", "cold_rows_per_sec"}
    assert gathered["table_bytes"] == pytest.approx(16 << 20, rel=0.1)
    assert (gathered["row_bytes"], gathered["cold_rows"]) == (256, 64)
    assert [batch["rows"] for batch in gathered["batches"]] == [1, 48]
    for batch in gathered["batches"]:
        assert set(batch) == {
            "rows",
            "threads",
            "given_microsec",
            "fresh_microsec",
            "times_fastest_peer",
            "moved_bytes_per_sec",
            "copied_bytes_per_sec",
        }
        assert set(batch["given_microsec"]) == WAYS
        assert WAYS <= set(batch["fresh_microsec"]) <= set(batch["threads"])
        assert set(batch["times_fastest_peer"]) == {"engram", "engram_fp8"}
        assert all(0.05 < time < 100_000 for time in batch["given_microsec"].values()), "microseconds, not seconds"
    ways = {"engram", "fault_at_a_time", "fault_at_a_time_readahead", "plain_pread"}
    assert set(gathered["cold_rows_per_sec"]) == ways


def test_more_rows_than_the_table_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--rows is 1,000,000, but the table has") as caught:
        bench_gather(table_mib=16, rows=[1_000_000], folder=tmp_path)
    assert caught.value.hint == "pass a larger --table-mib"
    assert list(tmp_path.iterdir()) == []


def test_the_document_of_bench_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_table(checkpoint_mib=64, rounds=1, folder=tmp_path, json=True)
    found = json.loads(capsys.readouterr().out)
    assert set(found["bytes_per_sec"]) == {"cp", "import", "export", "read", "read_together", "verify"}
    assert set(found) == {
        "checkpoint_mib",
        "bytes_per_sec",
        "import_times_cp",
        "export_times_cp",
        "verify_times_read",
        "verify_times_read_together",
    }
    assert found["checkpoint_mib"] == 64
    assert list(tmp_path.iterdir()) == []


def test_its_checkpoint_is_a_true_one(tmp_path: Path) -> None:
    size = make_checkpoint(tmp_path / "in", 4 << 20)
    checkpoint = read_checkpoint(tmp_path / "in")
    assert checkpoint.faults == ()
    assert checkpoint.total_bytes == size


@pytest.mark.parametrize("threads", [1, 3])
def test_plain_reading_reads_every_byte(tmp_path: Path, threads: int) -> None:
    for place, size in (("a", 700_000), ("b/c", 1), ("b/d", 0)):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(bytes(size))
    assert read_all(tmp_path, threads) == 700_001
