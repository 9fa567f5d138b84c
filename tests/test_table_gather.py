"""Gathering: few rows by the caller alone, many with the help of threads, always the same vectors and the same errors."""

import os
from collections.abc import Iterator
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from hashing.base.cores import CORES
from table.encodings.encoding import ENCODINGS, Encoding
from table.store.gather import ALONE_BYTES, Table, helpers

HEAD_DIM = 64
MANY = 3 * ALONE_BYTES // (4 * HEAD_DIM)  # rows that are shared among threads
RANDOM = np.random.default_rng(0)


def table_of(kind: Encoding, rows: int = 1000) -> Table:
    values = RANDOM.standard_normal((rows, HEAD_DIM), np.float32)
    return Table(kind.encoded(values)[0], kind, HEAD_DIM)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 48, MANY])
@pytest.mark.parametrize("kind", ENCODINGS.values(), ids=list(ENCODINGS))
def test_any_number_of_rows_is_what_was_decoded(kind: Encoding, count: int) -> None:
    table = table_of(kind)
    decoded = kind.decoded(table.records, HEAD_DIM)
    rows = RANDOM.integers(0, table.rows, count)
    assert np.array_equal(table.gather(rows), decoded[rows])


def test_rows_of_any_shape_and_stride_are_gathered() -> None:
    table = table_of(ENCODINGS["float32"])
    values = table.records.view(np.float32)
    for rows in (
        np.array(7),
        np.arange(60).reshape(3, 4, 5),
        np.arange(100)[::3],
        np.arange(12, dtype=np.int32).reshape(3, 4).T,
    ):
        assert np.array_equal(table.gather(rows), values[rows])


def test_memory_that_may_not_be_written_is_refused() -> None:
    table, out = table_of(ENCODINGS["float32"]), np.zeros((2, HEAD_DIM), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="expected contiguous float32"):
        table.gather(np.arange(2), out)
    assert not out.any()


@pytest.mark.parametrize("bad", [-1, 1000, 1 << 40])
@pytest.mark.parametrize("place", [0, MANY // 2, MANY - 1])
def test_the_first_row_outside_is_the_one_named(place: int, bad: int) -> None:
    table = table_of(ENCODINGS["e4m3-e8m0"])
    rows = np.zeros(MANY, np.int64)
    rows[place:] = 5000 + np.arange(MANY - place)  # all outside from here on
    rows[place] = bad
    with pytest.raises(IndexError, match=f"row {bad} is outside the table's 1000"):
        table.gather(rows)


@pytest.fixture
def busy_helpers() -> Iterator[None]:
    """All threads that help to gather wait for the test's end."""
    done = Event()
    waiting = [helpers().submit(done.wait, 30) for _ in range(CORES)]
    yield
    done.set()
    assert all(task.result() for task in waiting)


@pytest.mark.usefixtures("busy_helpers")
@pytest.mark.parametrize("count", [48, MANY])
def test_gathering_waits_for_no_thread_that_is_busy(count: int) -> None:
    table = table_of(ENCODINGS["float32"])
    rows = RANDOM.integers(0, table.rows, count)
    assert np.array_equal(table.gather(rows), table.records.view(np.float32)[rows])


def pages_of(records: NDArray[np.uint8], rows: list[int]) -> set[int]:
    begin, row_bytes = records.ctypes.data, records.shape[1]
    page = os.sysconf("SC_PAGESIZE")
    return {(begin + row * row_bytes + byte) // page for row in rows for byte in range(row_bytes)}


@pytest.mark.parametrize("rows", [[3], [3, 3, 3], [999, 0], list(range(1000)), [5, 900, 6, 901, 5]])
def test_each_page_is_asked_for_once(rows: list[int]) -> None:
    table = table_of(ENCODINGS["e4m3-e8m0"])
    for dtype in (np.int32, np.int64):
        assert table.read_ahead(np.array(rows, dtype)) == len(pages_of(table.records, rows))
