"""Shards: how many rows one has, and that one written in many pieces holds what was put into it."""

from pathlib import Path

import numpy as np
import pytest

from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.checksum import BLOCK_BYTES
from table.store.manifest import SHARD_BYTES, row_step, shard_path, shard_rows
from table.store.shard_map import HUGE_PAGE_BYTES
from table.store.store import write_store
from table.verify import verify
from tests.stores import spec_of_heads

ROWS = (30_011, 30_013, 30_029, 30_047)


@pytest.mark.parametrize("row_bytes", [18, 33, 34, 64, 66, 128, 160, 256, 264, 320, 1024])
def test_a_full_shard_is_whole_huge_pages(row_bytes: int) -> None:
    size = shard_rows(row_bytes, 1 << 40) * row_bytes
    assert size % HUGE_PAGE_BYTES == 0
    assert SHARD_BYTES // 2 < size <= 2 * SHARD_BYTES


@pytest.mark.parametrize("row_bytes", [130, 258, 4098])
def test_where_that_would_be_too_long_it_is_whole_blocks(row_bytes: int) -> None:
    size = shard_rows(row_bytes, 1 << 40) * row_bytes
    assert size % BLOCK_BYTES == 0
    assert size <= max(2 * SHARD_BYTES, row_step(row_bytes) * row_bytes)


def test_a_small_table_has_a_small_shard() -> None:
    assert shard_rows(264, 10) == row_step(264)
    assert shard_rows(256, 257) == 2 * row_step(256)


def test_a_shard_written_in_pieces_holds_every_row(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((sum(ROWS), 64), np.float32)
    store = write_store(tmp_path / "a.zarr", spec_of_heads(ROWS), np.empty(0, np.int32), {1: values})
    kind = ENCODINGS["e4m3-e8m0"]
    converted = convert(store, tmp_path / "b.zarr", kind)
    assert shard_path(converted.path, 1, 0).stat().st_size > 3 * HUGE_PAGE_BYTES
    assert np.array_equal(store.layer(1), values)
    assert np.array_equal(converted.table(1).records, kind.encoded(values)[0])
    assert verify(converted.path, full=True).faults == []
