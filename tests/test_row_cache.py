"""Rows through a cache are the table's rows, whatever was read before; and a file that changes gives no wrong row."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from table.encodings.encoding import ENCODINGS
from table.store.gather import Table
from table.store.parts import FilePart
from table.store.row_cache import PLACE_BYTES, RowCache
from table.store.row_cache_kernel import WAYS
from table.store.store import TableStore, create_store, write_store
from table.store.table_files import TableFiles
from tests.stores import spec_of_heads

WIDTH = 24
PARTS = ((0, 40), (7, 1), (None, 13), (3, 200))  # offset of each file's first row, None: rows of zeros; rows


@pytest.fixture
def parted(tmp_path: Path) -> tuple[NDArray[np.uint8], TableFiles]:
    return of_parts(tmp_path)


def of_parts(folder: Path) -> tuple[NDArray[np.uint8], TableFiles]:
    """The records of a table in files, with the files."""
    random = np.random.default_rng(0)
    records, parts = [], []
    for number, (offset, rows) in enumerate(PARTS):
        own = random.integers(0, 256, (rows, WIDTH), np.uint8)
        if offset is None:
            own[:] = 0
            parts.append(None)
        else:
            path = folder / f"part{number}"
            path.write_bytes(random.bytes(offset) + own.tobytes())
            os.utime(path, (0, 0))  # a clock that is read every few milliseconds may not tell two changes apart
            parts.append(FilePart(path, offset, rows, WIDTH))
        records.append(own)
    return np.concatenate(records), TableFiles(parts, np.cumsum([0, *(rows for _, rows in PARTS)]))


def made(files: TableFiles, rows: int) -> RowCache:
    """A cache of about so many rows."""
    return RowCache(files, WIDTH, rows * (WIDTH + PLACE_BYTES))


def read(cache: RowCache, *rows: int) -> NDArray[np.uint8]:
    return cache.finish(cache.begin(np.array(rows)))


@settings(max_examples=60, deadline=None)
@given(calls=st.lists(st.lists(st.integers(0, 253), max_size=60), max_size=12), rows=st.sampled_from([1, 16, 80, 1000]))
def test_records_are_those_of_the_files(tmp_path_factory: pytest.TempPathFactory, calls: list[list[int]], rows: int) -> None:
    records, files = of_parts(tmp_path_factory.mktemp("parts"))
    cache = made(files, rows)
    begun = [cache.begin(np.array(call, np.int64)) for call in calls]  # several are begun before the first is finished
    for call, reading in zip(calls, begun, strict=True):
        assert np.array_equal(cache.finish(reading), records[call])
    counts = cache.counts()
    assert counts.asked == sum(map(len, calls))
    assert counts.hit + counts.read + counts.waited == counts.unique <= counts.asked
    assert counts.bytes_read == (counts.read + counts.waited) * WIDTH


def test_what_was_read_is_not_read_again(parted: tuple[NDArray[np.uint8], TableFiles]) -> None:
    cache = made(parted[1], 1000)
    assert cache.capacity == 256, "no more than the table has, in whole sets"
    read(cache, 5, 6, 5, 45)
    read(cache, 6, 5)
    counts = cache.counts()
    assert (counts.asked, counts.unique, counts.read + counts.waited) == (6, 5, 2), "row 45 is zeros, which lie in no file"
    assert counts.hit == 3


def test_what_was_used_longest_ago_makes_way(parted: tuple[NDArray[np.uint8], TableFiles]) -> None:
    """Beside an ordered list of the rows that one set holds."""
    cache, held, hits = made(parted[1], WAYS), list[int](), 0
    assert cache.capacity == WAYS
    for row in np.random.default_rng(0).zipf(1.3, 400) % 100 + 100:
        hits += row in held
        held = [*(other for other in held if other != row), row][-WAYS:]
        read(cache, int(row))
    assert cache.counts().hit == hits > 100


def test_the_memory_is_bounded(tmp_path: Path) -> None:
    rows = 200_000
    path = tmp_path / "rows"
    path.write_bytes(bytes(rows * WIDTH))
    cache = RowCache(TableFiles([FilePart(path, 0, rows, WIDTH)], np.array([0, rows])), WIDTH, 100_000)
    assert cache.capacity * (WIDTH + PLACE_BYTES) <= 100_000
    for first in range(0, rows, 5000):
        cache.finish(cache.begin(np.arange(first, first + 5000)))
    held = sum(array.nbytes for array in (cache._slots, cache._records))
    assert held <= 100_000


@pytest.mark.parametrize("row", [-1, 254, 1 << 40])
def test_a_row_that_there_is_not(parted: tuple[NDArray[np.uint8], TableFiles], row: int) -> None:
    cache = made(parted[1], 16)
    with pytest.raises(IndexError, match=f"row {row} is outside the table's 254"):
        cache.begin(np.array([3, row]))


def cut(path: Path) -> None:
    os.truncate(path, 100)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(50))


@pytest.mark.parametrize("change", [cut, overwritten])
def test_a_file_that_changes_is_trusted_no_more(
    parted: tuple[NDArray[np.uint8], TableFiles], change: Callable[[Path], None]
) -> None:
    """Rows of the other files are read as before."""
    records, files = parted
    cache = made(files, 1000)
    read(cache, 60, 250)
    assert files.parts[0] is not None
    change(files.parts[0].path)
    assert np.array_equal(read(cache, 250, 251), records[[250, 251]])
    for _ in range(2):
        with pytest.raises(EngramError, match=r"part0 (has changed|ends before)"):
            read(cache, 1)
    assert np.array_equal(read(cache, 250, 251), records[[250, 251]])
    opened = files.parts[0].path
    with pytest.raises(EngramError, match="has changed since"):
        RowCache(files, WIDTH, 100)
    opened.unlink()
    with pytest.raises(EngramError, match="cannot open"):
        RowCache(files, WIDTH, 100)


def test_a_file_that_was_removed_is_still_read(parted: tuple[NDArray[np.uint8], TableFiles]) -> None:
    records, files = parted
    cache = made(files, 16)
    for part in files.parts:
        if part is not None:
            part.path.unlink()
    assert np.array_equal(read(cache, *range(254)), records)


def test_files_beyond_what_a_process_may_open(tmp_path: Path) -> None:
    """As far as the system lets it, the process may open more."""
    path = tmp_path / "rows"
    path.write_bytes(bytes(4 * WIDTH))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        parts = [FilePart(path, 0, 4, WIDTH)] * 300
        cache = RowCache(TableFiles(parts, np.arange(301) * 4), WIDTH, 1000)
        assert not read(cache, *range(0, 1200, 7)).any()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("encoding", ["float32", "bfloat16", "int8", "int4", "e4m3-e8m0"])
def test_of_a_store(tmp_path: Path, encoding: str) -> None:
    spec = spec_of_heads((1009, 1013))
    values = np.random.default_rng(0).standard_normal((2022, 64), np.float32)
    plain = write_store(tmp_path / "plain.zarr", spec, np.empty(0, np.int32), {1: values}).table(1)
    kind = ENCODINGS[encoding]
    records, _ = kind.encoded(values)
    table = Table(records, kind, 64) if encoding != "float32" else plain
    if encoding == "float32":
        cache = RowCache(table.files, table.row_bytes, 50_000)
        rows = np.random.default_rng(1).integers(0, 2022, 700)
        assert np.array_equal(table.decoded(cache.finish(cache.begin(rows))), values[rows])
    else:
        assert np.array_equal(table.decoded(records[:5]), table.gather(np.arange(5)))
        with pytest.raises(EngramError, match="in memory"):
            _ = table.files


def test_of_a_sparse_store(tmp_path: Path) -> None:
    store = create_store(tmp_path / "t.zarr", spec_of_heads((1009, 1013)), np.empty(0, np.int32), ENCODINGS["int8"], 64)
    table = TableStore.open(store.path).table(1)
    cache = RowCache(table.files, table.row_bytes, 5000)
    assert not cache.finish(cache.begin(np.arange(2022))).any()
    assert cache.counts().bytes_read == 0
