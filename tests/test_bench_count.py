"""The ways that `engram bench count` compares count the same, and the bench names them all."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engram_cli.bench.count_speed import CountWays, measure, packed_keys, peak_bytes, skewed_ids
from tests.commands import engram, refused

SIZE = 99_092


@pytest.mark.parametrize("order", [2, 3, 4])
def test_every_way_finds_the_same_ngrams(tmp_path: Path, order: int) -> None:
    """Our documents end and the peers' stream does not, so ours are counted as one document here."""
    ids = skewed_ids(4000, SIZE)
    ways = CountWays(ids, SIZE, order, tmp_path)
    expected = np.unique(np.lib.stride_tricks.sliding_window_view(ids, order), axis=0, return_counts=True)[1]
    assert sorted(ways.numpy()) == sorted(expected)
    assert ways.engram() == len(expected) + order - 1  # and those that begin before the document
    ways.engram_file()
    found = pq.read_table(ways.path("engram_file"))
    assert sorted(found["count"].to_pylist()) == sorted([*expected.tolist(), *[1] * (order - 1)])
    if find_spec("duckdb"):
        ways.duckdb_file()
        assert sorted(pq.read_table(ways.path("duckdb_file"))["count"].to_pylist()) == sorted(expected.tolist())


def test_keys_are_one_word_or_a_word_and_a_narrow_one() -> None:
    ids = np.array([5, 7, SIZE - 1, 0], np.int32)
    assert [key.dtype for key in packed_keys(ids, 3, SIZE)] == [np.int64]
    assert [key.dtype for key in packed_keys(ids, 4, SIZE)] == [np.int64, np.int32]
    assert packed_keys(ids, 2, SIZE)[0].tolist() == [5 << 17 | 7, 7 << 17 | SIZE - 1, (SIZE - 1) << 17]


def test_the_measurement_has_every_figure(tmp_path: Path) -> None:
    speed = measure(skewed_ids(20_000, SIZE), SIZE, 2, tmp_path, rounds=1)
    ways = {"engram", "engram_file", "numpy"} | ({"duckdb", "duckdb_file"} if find_spec("duckdb") else set())
    assert set(speed.sec) == ways
    assert set(speed.file_bytes) == {way for way in ways if way.endswith("_file")}
    assert speed.times("numpy", "engram") == speed.sec["numpy"] / speed.sec["engram"]
    assert speed.times("absent", "engram") is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    ids = skewed_ids(1_000_000, SIZE)
    assert 8 * len(ids) <= peak_bytes("numpy", ids, SIZE, 2, tmp_path) < 64 * len(ids)


def test_a_file_without_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.empty(0, np.int64))
    refused(engram("bench", "count", "--ids", tmp_path / "none.npy", "--folder", tmp_path), 1, "none.npy holds no token ids")
