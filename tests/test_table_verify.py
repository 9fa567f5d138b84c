"""A flipped bit anywhere in a store is found, with shard and row; bad codes and scales are found in stores and checkpoints."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from table.checkpoints.safetensors_file import read_header
from table.encodings.encoding import ENCODINGS, Encoding
from table.store.checksum import BLOCK_BYTES, crc32c, flipped_byte
from table.store.store import TableStore, write_store
from table.verify import verify
from tests.checkpoints import deepseek, qwen
from tests.stores import flip, spec_of_heads

FLIPS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    folder = tmp_path_factory.mktemp("verify")
    checkpoint = read_checkpoint(deepseek(folder / "in").folder)
    return Import(checkpoint, checkpoint.encoding).run(folder / "t.zarr", shard_bytes=1 << 20)


def test_a_bit_flipped_anywhere_is_found_with_shard_and_row(store: TableStore) -> None:
    random = np.random.default_rng(0)
    files = sorted(file for file in store.path.rglob("*") if file.is_file())
    shards = [file for file in files if file.relative_to(store.path).parts[0] == "layers" and file.name == "0"]
    assert len(shards) == 4
    chosen = [*files, *(shards[i] for i in random.integers(0, len(shards), FLIPS - len(files)))]
    for file in chosen:
        position, bit = int(random.integers(file.stat().st_size)), int(random.integers(8))
        flip(file, position, bit)
        faults = verify(store.path, full=True).faults
        flip(file, position, bit)
        assert faults, f"bit {bit} of byte {position} of {file}"
        if file in shards:
            layer, shard = file.parts[-4], int(file.parts[-2])
            row = shard * store.manifest.layers[int(layer)].shard_rows + position // store.row_bytes
            assert faults[0].startswith(f"layer {layer}, shard {shard}: row {row:,}: one bit is flipped"), (faults, position)
    assert verify(store.path, full=True).faults == []


def test_more_damage_than_a_bit_is_narrowed_to_a_block(store: TableStore) -> None:
    path = store.path / "layers/14/c/1/0"
    before = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(bytes(4096))
    (fault,) = verify(store.path, full=True).faults
    assert verify(store.path).faults == []
    path.write_bytes(before)
    found = re.fullmatch(r"layer 14, shard 1: rows ([\d,]+) to ([\d,]+): the checksum is .*", fault)
    assert found is not None
    first, last = (int(number.replace(",", "")) - store.manifest.layers[14].shard_rows for number in found.groups())
    assert first <= 3 * 4096 // 264 <= last <= BLOCK_BYTES // 264


def test_a_stray_file_is_found(store: TableStore) -> None:
    stray = store.path / "layers" / "14" / "c" / "9" / "0"
    stray.parent.mkdir()
    stray.write_bytes(b"?")
    (fault,) = verify(store.path).faults
    stray.unlink()
    stray.parent.rmdir()
    assert "does not belong" in fault


@pytest.mark.parametrize("length", [1, 100, BLOCK_BYTES])
def test_the_place_of_a_flipped_bit_follows_from_two_checksums(length: int) -> None:
    random = np.random.default_rng(length)
    data = bytearray(random.bytes(length))
    kept = crc32c(bytes(data))
    for position in random.integers(0, length, 5):
        data[position] ^= 1 << int(random.integers(8))
        assert flipped_byte(kept, crc32c(bytes(data)), length) == position
        kept = crc32c(bytes(data))
    assert flipped_byte(kept, kept ^ 0x5A5A5A5A, min(length, 100)) is None
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


ROWS = (1009, 1013, 1019, 1021)


def bad_store(path: Path, kind: Encoding, row: int, value: float) -> TableStore:
    spec = spec_of_heads(ROWS)
    table = np.random.default_rng(3).normal(size=(spec.rows(1), 64)).astype(np.float32)
    table[row] *= value
    table[5] = 0
    source = write_store(path.with_name("f.zarr"), spec, np.arange(100, dtype=np.int32), {1: table})
    if kind.name == "float32":
        return source
    from table.convert import convert

    return convert(source, path, kind)


@pytest.mark.parametrize("kind", ENCODINGS.values(), ids=list(ENCODINGS))
def test_rows_that_are_no_numbers_are_found_in_every_encoding(tmp_path: Path, kind: Encoding) -> None:
    store = bad_store(tmp_path / "t.zarr", kind, 1234, np.nan)
    result = verify(store.path, full=True)
    assert [fault.partition(" (")[0].rpartition(" holds")[0] or fault.partition(" has")[0] for fault in result.faults] == [
        "layer 1, shard 0: row 1,234"
    ]
    assert result.notes == [f"layer 1: {2 if kind.name in {'int8', 'int4'} else 1} rows of zeros"]
    assert verify(store.path).faults == []


@pytest.mark.parametrize("name", ["e4m3-e8m0", "int8", "int4"])
def test_a_scale_out_of_the_ordinary_is_found(tmp_path: Path, name: str) -> None:
    store = bad_store(tmp_path / "t.zarr", ENCODINGS[name], 77, 2.0**40)
    faults = verify(store.path, full=True).faults
    assert faults
    assert all(fault.startswith("layer 1, shard 0: row 77 has a scale near 2^") for fault in faults)


@pytest.mark.parametrize("family", ["deepseek", "qwen"])
def test_bad_codes_are_found_in_a_checkpoint(tmp_path: Path, family: str) -> None:
    made = deepseek(tmp_path / "in") if family == "deepseek" else qwen(tmp_path / "in", torch.float8_e4m3fn)
    assert verify(made.folder, full=True).faults == []
    suffix = "embed.weight" if family == "deepseek" else "shard_0.weight"
    (file, tensor) = next(
        (path, tensor)
        for path in sorted(made.folder.glob("*.safetensors"))
        for name, tensor in read_header(path).tensors.items()
        if name.endswith(suffix) and name != "embed.weight"
    )
    with file.open("r+b") as target:
        target.seek(tensor.begin + 700 * tensor.shape[1] + 3)
        target.write(b"\xff")
    (fault,) = verify(made.folder, full=True).faults
    assert fault == "layer 1: row 700 holds a code that is no number (1 such rows)"
    assert verify(made.folder).faults == []


@pytest.mark.parametrize("change", ["missing", "shorter"])
def test_what_is_kept_of_a_checkpoint_is_looked_at_without_reading_it(tmp_path: Path, change: str) -> None:
    deepseek(tmp_path / "in", base=200)
    checkpoint = read_checkpoint(tmp_path / "in")
    store = Import(checkpoint, checkpoint.encoding).run(tmp_path / "t.zarr")
    kept = store.path / "origin" / "2" / "c" / "0"
    content = kept.read_bytes()
    kept.unlink()
    if change == "shorter":
        kept.write_bytes(content[:-1])
    (fault,) = verify(store.path).faults
    assert fault.startswith("what was kept of model-")
