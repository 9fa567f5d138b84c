"""Stores: other Zarr readers open them, rows of any size cost nothing until written, and rows are gathered as asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr

from hashing.base.errors import EngramError
from hashing.named_specs import named_spec
from table.convert import convert, measure
from table.encodings.encoding import ENCODINGS, Encoding
from table.store.gather import Table
from table.store.shard_map import PAGE_BYTES
from table.store.store import TableStore, create_store, write_store
from tests.commands import Done, document, engram
from tests.stores import spec_of_heads

ROWS = (9001, 9007, 9011, 9013)
SMALL_SHARDS = 1 << 17


@pytest.fixture(scope="module")
def values() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(5).normal(size=(sum(ROWS), 64)).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, values: Any) -> TableStore:
    path = tmp_path_factory.mktemp("store") / "t.zarr"
    return write_store(path, spec_of_heads(ROWS), np.arange(100, dtype=np.int32), {1: values}, step=7)


def test_what_was_written_is_read(store: TableStore, values: Any) -> None:
    assert np.array_equal(store.layer(1), values)
    assert not store.layer(1).flags.writeable
    assert np.array_equal(store.mapping, np.arange(100))
    assert (store.step, store.head_dim, store.row_bytes, store.total_rows) == (7, 64, 256, sum(ROWS))


@pytest.mark.parametrize("kind", ENCODINGS.values(), ids=list(ENCODINGS))
def test_zarr_python_and_tensorstore_read_the_same_records(tmp_path: Path, store: TableStore, kind: Encoding) -> None:
    converted = convert(store, tmp_path / "t.zarr", kind, shard_bytes=SMALL_SHARDS)
    assert converted.manifest.shard_count(1) > 1
    array = zarr.open_group(converted.path, mode="r")["layers/1"]
    assert isinstance(array, zarr.Array)
    second = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(converted.path / "layers" / "1")}}, open=True
    ).result()
    expected = np.asarray(converted.table(1).records)
    for records in (np.asarray(array[:]), np.asarray(second[:].read().result())):
        assert np.array_equal(np.ascontiguousarray(records).view(np.uint8).reshape(expected.shape), expected)
    sums = zarr.open_group(converted.path, mode="r")["checksums/1"]
    assert isinstance(sums, zarr.Array)
    assert np.array_equal(np.asarray(sums[1]), converted.checksums(1, 1))


@pytest.mark.parametrize("kind", ENCODINGS.values(), ids=list(ENCODINGS))
def test_gathered_rows_are_the_decoded_records(tmp_path: Path, store: TableStore, kind: Encoding) -> None:
    converted = convert(store, tmp_path / "t.zarr", kind, shard_bytes=SMALL_SHARDS)
    table = converted.table(1)
    rows = np.random.default_rng(0).integers(0, table.rows, (70, 501))
    decoded = kind.decoded(np.ascontiguousarray(table.records), 64, table.scale)
    out = np.full((70, 501, 64), np.nan, np.float32)
    assert table.gather(rows, out) is out
    assert np.array_equal(out, decoded[rows])
    assert np.array_equal(table.gather(rows[:2, :3].astype(np.int32)), decoded[rows[:2, :3]])
    assert table.gather(rows[:0]).shape == (0, 501, 64)
    for bad in (-1, table.rows):
        with pytest.raises(IndexError, match=f"row {bad} is outside"):
            table.gather(np.array([0, bad]))


def test_a_buffer_of_another_shape_is_refused(store: TableStore) -> None:
    table, rows = store.table(1), np.zeros((2, 3), np.int64)
    for out in (np.empty((6, 64), np.float32), np.empty((2, 3, 64)), np.empty((2, 64, 3), np.float32).swapaxes(1, 2)):
        with pytest.raises(ValueError, match="expected contiguous float32"):
            table.gather(rows, out)  # type: ignore[arg-type]


def test_rows_asked_for_ahead_become_resident(tmp_path: Path, values: Any) -> None:
    import os

    store = write_store(tmp_path / "t.zarr", spec_of_heads(ROWS), np.empty(0, np.int32), {1: values})
    path = next(store.path.glob("layers/1/c/*/0"))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    table = store.table(1)
    before = table.resident_bytes()
    rows = np.array([[5, 1000], [5, 32000]])
    assert table.read_ahead(rows) == len({row * 256 // PAGE_BYTES for row in (5, 1000, 32000)})
    assert np.array_equal(table.gather(rows), values[rows])
    after = table.resident_bytes()
    assert after >= min(before + 3 * PAGE_BYTES, len(values) * 256)
    assert table.read_ahead(np.arange(0)) == 0
    with pytest.raises(IndexError, match="not all inside"):
        table.read_ahead(np.array([table.rows]))
    table.gather(np.arange(table.rows))
    assert table.resident_bytes() >= table.records.nbytes


def test_read_ahead_covers_records_that_cross_pages() -> None:
    records = np.zeros((5000, 264), np.uint8)
    table = Table(records, ENCODINGS["e4m3-e8m0"], 256)
    begin = records.ctypes.data
    rows = np.random.default_rng(0).integers(0, 5000, 300)
    pages = {(begin + row * 264 + byte) // PAGE_BYTES for row in rows.tolist() for byte in (0, 263)}
    assert table.read_ahead(rows) == len(pages)


def test_a_full_size_store_of_zeros_costs_kilobytes(tmp_path: Path) -> None:
    published = named_spec("deepseek-v4.1")
    store = create_store(tmp_path / "t.zarr", published.bare_spec(), np.empty(0, np.int32), ENCODINGS["e4m3-e8m0"], 256)
    assert store.total_bytes == 768_022_850 * 264  # 188.83 GiB, as published
    files = [file for file in store.path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8192
    assert {file.name for file in files} == {"zarr.json"}, "no shard is made, which is why it takes no time"
    table = store.table(14)
    assert table.rows == 384_016_682
    assert not table.gather(np.array([0, table.rows - 1])).any()
    assert table.resident_bytes() < 1 << 20


def test_the_error_report_agrees_with_the_definitions(tmp_path: Path, store: TableStore, values: Any) -> None:
    converted = convert(store, tmp_path / "t.zarr", ENCODINGS["int4"])
    (error,) = measure(store, converted)
    before, after = values.astype(np.float64), converted.table(1).gather(np.arange(sum(ROWS))).astype(np.float64)
    noise = ((before - after) ** 2).sum()
    assert error.relative_rms_error == pytest.approx(np.sqrt(noise / (before**2).sum()))
    assert error.snr_db == pytest.approx(10 * np.log10((before**2).sum() / noise))
    assert error.cosine == pytest.approx((before * after).sum() / np.sqrt((before**2).sum() * (after**2).sum()))
    relative = np.sqrt(((before - after) ** 2).sum(axis=1) / (before**2).sum(axis=1))
    assert [row for _, row in error.worst] == np.argsort(-relative)[:5].tolist()
    assert error.worst[0][0] == pytest.approx(relative.max())
    (exact,) = measure(store, convert(store, tmp_path / "same.zarr", ENCODINGS["float32"]))
    assert (exact.relative_rms_error, exact.snr_db, exact.saturated, exact.worst) == (0, None, 0, [])


def test_a_store_in_another_encoding_has_no_float32_array(tmp_path: Path, store: TableStore) -> None:
    with pytest.raises(EngramError, match="holds int8 rows, expected float32"):
        convert(store, tmp_path / "t.zarr", ENCODINGS["int8"]).layer(1)


def test_a_plan_s_figures_are_the_published_ones() -> None:
    found = document("plan")
    assert found["row_bytes"] == 264
    assert found["reads_per_token"] == 48
    assert found["table_bytes"] == 768_022_850 * 264
    assert found["parameters"] == 768_022_850 * 256  # 196.6 G


def table(*arguments: object, code: int = 0) -> Done:
    done = engram("table", *arguments)
    assert done.returncode == code, done.stderr
    return done


def test_the_command_s_errors_are_one_sentence(tmp_path: Path, store: TableStore) -> None:
    made = json.loads(table("create", "--spec", "engram-demo", "--out", tmp_path / "a.zarr", "--json").stdout)
    assert made["layers"]["1"] == {
        "rows": 10_344_164,
        "scale": 1.0,
        "shards": 40,
        "shards_present": 0,
        "shard_bytes": 67_108_864,
    }
    done = table("create", "--spec", "engram-demo", "--out", tmp_path / "a.zarr", code=1)
    assert done.stderr.splitlines()[1] == "hint: pass --force to replace it"
    done = table("convert", store.path, "--encoding", "float12", "--out", tmp_path / "b.zarr", code=2)
    assert done.stderr.startswith('error: no encoding is called "float12"\nhint: the names are float32,')
    done = table("export", store.path, "--out", tmp_path / "c", code=1)
    assert done.stderr.startswith(f"error: {store.path} was not imported")
    done = table("import", tmp_path, "--out", tmp_path / "d.zarr", code=1)
    assert "no such file" in done.stderr
    (tmp_path / "a.zarr" / "layers" / "stray").write_text("?")
    done = table("verify", tmp_path / "a.zarr", "--json", code=1)
    assert json.loads(done.stdout)["faults"] == [f"{tmp_path / 'a.zarr' / 'layers' / 'stray'} does not belong to the store"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr"]
