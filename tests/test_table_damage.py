"""Damaged rows do not pass: `convert` and `export` compare what they read with its checksums, and leave nothing behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hashing.base.atomic import partial_path
from hashing.base.errors import EngramError
from table.checkpoints.exporter import export
from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from table.convert import convert, measure
from table.encodings.encoding import ENCODINGS
from table.store.checksum import BLOCK_BYTES
from table.store.manifest import origin_path, shard_path
from table.store.store import TableStore
from table.verify import verify
from tests.checkpoints import deepseek
from tests.stores import flip

DAMAGED_ROW = 9000  # of layer 14, in its second shard


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    checkpoint = read_checkpoint(deepseek(tmp_path / "in").folder)
    return Import(checkpoint, checkpoint.encoding).run(tmp_path / "t.zarr", shard_bytes=1 << 20)


def damage(store: TableStore) -> str:
    """Flips a bit of a row; gives what the rows of its block are called."""
    in_shard = DAMAGED_ROW - store.manifest.layers[14].shard_rows
    flip(shard_path(store.path, 14, 1), in_shard * store.row_bytes + 3, 5)
    block = in_shard * store.row_bytes // BLOCK_BYTES
    first, last = block * BLOCK_BYTES // store.row_bytes, ((block + 1) * BLOCK_BYTES - 1) // store.row_bytes
    begin = store.manifest.layers[14].shard_rows
    return f"layer 14, shard 1: rows {begin + first:,} to {begin + last:,} are damaged: the checksum is [0-9a-f]{{8}}, expected"


WAYS: dict[str, Callable[[TableStore, Path], object]] = {
    "export": export,
    "the same encoding": lambda store, out: convert(store, out, store.encoding),
    "float32": lambda store, out: convert(store, out, ENCODINGS["float32"]),
    "a scale for the table": lambda store, out: convert(store, out, ENCODINGS["e4m3"]),
    "int4": lambda store, out: convert(store, out, ENCODINGS["int4"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_damaged_rows_are_named_and_nothing_is_left(store: TableStore, tmp_path: Path, way: str) -> None:
    message = damage(store)
    with pytest.raises(EngramError, match=message) as refused:
        WAYS[way](store, tmp_path / "out")
    assert "verify --full" in refused.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "t.zarr"]


def test_damage_is_found_where_errors_are_measured(store: TableStore, tmp_path: Path) -> None:
    other = convert(store, tmp_path / "other.zarr", ENCODINGS["int8"])
    message = damage(store)
    with pytest.raises(EngramError, match=message):
        measure(store, other)


def test_a_missing_shard_and_damaged_kept_bytes_leave_nothing(store: TableStore, tmp_path: Path) -> None:
    flip(origin_path(store.path, 2), 20, 1)
    for way in (WAYS["int4"], export):
        with pytest.raises(EngramError, match=r"what was kept of model-00002-of-00003\.safetensors is missing or was altered"):
            way(store, tmp_path / "out")
    flip(origin_path(store.path, 2), 20, 1)
    shard_path(store.path, 14, 1).unlink()
    for way in (WAYS["int4"], export):
        with pytest.raises(EngramError, match="a shard of layer 14 is missing"):
            way(store, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "t.zarr"]


def test_an_interrupted_conversion_is_kept_and_goes_on(store: TableStore, tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(store, tmp_path / "out", ENCODINGS["int8"], interrupt)
    assert partial_path(tmp_path / "out").is_dir()
    done = convert(store, tmp_path / "out", ENCODINGS["int8"])
    assert verify(done.path, full=True).faults == []
    assert not partial_path(tmp_path / "out").exists()


@pytest.mark.parametrize(("first", "count"), [(0, 9210), (1, 500), (8191, 2), (8192, 1), (5000, 4210)])
def test_rows_read_with_their_checksums_are_the_rows(store: TableStore, first: int, count: int) -> None:
    plain, checked = (np.empty((count, store.row_bytes), np.uint8) for _ in range(2))
    store.read_records(1, first, plain)
    store.read_checked(1, first, checked)
    assert np.array_equal(plain, checked)
