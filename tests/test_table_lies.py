"""One test for each way in which a checkpoint or a store can lie: it is refused before a byte is copied or read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hashing.base.errors import EngramError
from hashing.named_specs import named_spec
from hashing.vocab import CanonicalVocab
from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from table.checkpoints.safetensors_file import read_header
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore, create_store
from table.verify import verify
from tests.checkpoints import INDEX, deepseek, qwen
from tests.lies import Lie, change_bytes, change_config, change_json

TABLE_FILE = "model-00002-of-00003.safetensors"
WEIGHT, SCALE = "layers.1.engram.embed.weight", "layers.1.engram.embed.scale"


def change_header(change: Callable[[dict[str, Any]], None], file: str = TABLE_FILE) -> Lie:
    """The header is padded to its old length, so that every offset still means what it did."""

    def lie(folder: Path) -> None:
        data = (folder / file).read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        content = json.dumps(header, separators=(",", ":")).encode().ljust(length)
        (folder / file).write_bytes(len(content).to_bytes(8, "little") + content + data[8 + length :])

    return lie


def shift(name: str, by: int) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]

    return change


def set_entry(name: str, **keys: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update(keys)


def truncate(folder: Path) -> None:
    path = folder / TABLE_FILE
    path.write_bytes(path.read_bytes()[:-1000])


def long_header(folder: Path) -> None:
    path = folder / TABLE_FILE
    path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])


def outside(folder: Path) -> None:
    change_json(folder / INDEX, lambda content: content["weight_map"].update({WEIGHT: "../elsewhere.safetensors"}))


def without_tensor(folder: Path) -> None:
    change_json(folder / INDEX, lambda content: content["weight_map"].pop(SCALE))


LIES: dict[str, tuple[Lie, str]] = {
    "wrong row count": (change_config(engram_num_embeddings=[9210, 9999]), "engram_num_embeddings against the sums"),
    "prime base": (change_config(engram_vocab_size=1600), "engram_num_embeddings against the sums"),
    "heads": (change_config(engram_n_heads=4), "engram_num_embeddings against the sums"),
    "missing file": (lambda folder: (folder / TABLE_FILE).unlink(), "no such file"),
    "missing tensor": (without_tensor, "missing from the index"),
    "overlapping offsets": (change_header(shift(WEIGHT, -64)), "overlaps|leaves a hole"),
    "offsets out of range": (change_header(shift(WEIGHT, 1 << 40)), "leaves a hole|is truncated"),
    "offsets that do not fit the shape": (change_header(set_entry(SCALE, data_offsets=[0, 8])), "has 8 bytes, but"),
    "negative offsets": (change_header(set_entry(SCALE, data_offsets=[-8, 0])), "no whole numbers"),
    "wrong dtype": (change_header(set_entry(WEIGHT, dtype="F8_E5M2")), "dtype of .*found F8_E5M2, expected F8_E4M3"),
    "unknown dtype": (change_header(set_entry(WEIGHT, dtype="F9")), "not known"),
    "table scale instead of scales": (change_header(set_entry(SCALE, shape=[8, 9210])), "shape of .*scale"),
    "truncated file": (truncate, "is truncated"),
    "header of absurd length": (long_header, "header would be"),
    "header that is no JSON": (lambda folder: change_bytes(folder / TABLE_FILE, 8, b"x"), "not JSON"),
    "index naming a file outside": (outside, "names a file outside the folder"),
    "configuration without a key": (
        lambda folder: change_json(folder / "config.json", lambda content: content["text_config"].pop("engram_head_dim")),
        "lacks engram_head_dim",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_checkpoint_that_lies_is_refused_and_its_fault_is_named(tmp_path: Path, name: str) -> None:
    lie, message = LIES[name]
    folder = deepseek(tmp_path / "in").folder
    rows = json.loads((folder / "config.json").read_text())["text_config"]["engram_num_embeddings"]
    assert rows[0] == 9210, "the lies above name the true number"
    lie(folder)
    with pytest.raises(EngramError, match=message):
        Import((found := read_checkpoint(folder).check()), found.encoding).run(tmp_path / "t.zarr")
    assert verify(folder).faults
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


QWEN_LIES: dict[str, tuple[Lie, str]] = {
    "prime sum off by one shard": (change_config(split_ngram_parts=5), "equal parts|shape of"),
    "fewer shards": (change_config(split_ngram_parts=2), "shape of"),
    "base": (change_config(ngram_vocab_size_base=4000), "shape of"),
    "multipliers": (change_config(vocab_size=5001), "layer_multipliers against those of the initialiser"),
    "mixed dtypes": (
        change_header(
            lambda header: [entry.update(dtype="F16") for name, entry in header.items() if "shard_1" in name].clear(),
            "model-00001-of-00002.safetensors",
        ),
        "dtype of .*found F16, expected BF16",
    ),
    "row width": (change_config(ple_embed_dim=1288), "shape of"),
}


@pytest.mark.parametrize("name", QWEN_LIES)
def test_a_qwen_checkpoint_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    lie, message = QWEN_LIES[name]
    folder = qwen(tmp_path / "in", torch.bfloat16).folder
    assert read_checkpoint(folder).faults == ()
    lie(folder)
    with pytest.raises(EngramError, match=message):
        read_checkpoint(folder).check()


def test_a_scale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    folder = qwen(tmp_path / "in", torch.float8_e4m3fn).folder
    file = read_header(folder / "model-00001-of-00002.safetensors")
    scale = next(tensor for name, tensor in file.tensors.items() if name.endswith("weight_scale"))
    change_bytes(file.path, scale.begin, b"\xc0\x7f")
    with pytest.raises(EngramError, match="weight_scale is nan"):
        read_checkpoint(folder).check()


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    checkpoint = read_checkpoint(deepseek(tmp_path / "in").folder)
    return Import(checkpoint, checkpoint.encoding).run(tmp_path / "t.zarr", shard_bytes=1 << 20)


def change_manifest(**keys: Any) -> Lie:
    """With the checksum made right again, as a liar would."""

    def lie(path: Path) -> None:
        from table.store.checksum import crc_text
        from table.store.zarr_metadata import canonical_json, group_json

        content = json.loads((path / "zarr.json").read_text())["attributes"]["engram"] | keys
        content.pop("crc32c")
        (path / "zarr.json").write_bytes(group_json({"engram": {**content, "crc32c": crc_text(canonical_json(content))}}))

    return lie


def other_spec(path: Path) -> None:
    content = json.loads((path / "zarr.json").read_text())["attributes"]["engram"]["spec"]
    content["canonical_size"] += 1
    change_manifest(spec=content)(path)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


STORE_LIES: dict[str, tuple[Lie, str]] = {
    "unfinished": (change_manifest(complete=False), "was not finished"),
    "no mark at all": (lambda path: edit(path / "zarr.json", '"complete":true,', ""), "was not finished"),
    "unknown encoding": (change_manifest(encoding="float12"), 'encoding "float12" is not known'),
    "another encoding": (change_manifest(encoding="int8"), "shards of .* rows|does not describe"),
    "another format": (change_manifest(format=99), "of format 99"),
    "unknown key": (change_manifest(colour="red"), "unknown: colour"),
    "altered manifest": (lambda path: edit(path / "zarr.json", '"step":null', '"step":7'), "manifest was altered"),
    "spec of another vocabulary": (other_spec, "do not follow from seed"),
    "other head_dim": (change_manifest(head_dim=128), "shards of .* rows|does not describe"),
    "not a store": (lambda path: (path / "zarr.json").write_text("{}"), "is not a table store"),
    "wrong row count": (lambda path: edit(path / "layers/1/zarr.json", "9210", "9211"), "does not describe the array"),
    "missing array": (lambda path: (path / "layers/14/zarr.json").unlink(), "is missing"),
}


@pytest.mark.parametrize("name", STORE_LIES)
def test_a_store_that_lies_does_not_open(store: TableStore, name: str) -> None:
    lie, message = STORE_LIES[name]
    lie(store.path)
    with pytest.raises(EngramError, match=message):
        TableStore.open(store.path)
    assert verify(store.path).faults


SHARD_LIES: dict[str, tuple[Lie, str]] = {
    "missing shard": (lambda path: (path / "layers/14/c/1/0").unlink(), "a shard of layer 14 is missing"),
    "truncated shard": (lambda path: (path / "layers/14/c/1/0").write_bytes(b"short"), "has 5 bytes, expected"),
}


@pytest.mark.parametrize("name", SHARD_LIES)
def test_a_shard_that_lies_is_refused_before_it_is_mapped(store: TableStore, name: str) -> None:
    lie, message = SHARD_LIES[name]
    lie(store.path)
    store.table(1)
    with pytest.raises(EngramError, match=message):
        store.table(14)
    (fault,) = verify(store.path).faults
    assert fault.startswith("layer 14, shard 1: ")


def test_another_vocabulary_is_refused(store: TableStore) -> None:
    with pytest.raises(EngramError, match="does not know its vocabulary"):
        store.check_vocab("0123456789abcdef")


def test_a_store_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    vocab = CanonicalVocab(names, names, np.array([0, 1, 2], np.int32), names)
    own, other = vocab.fingerprint, CanonicalVocab(names, names, np.array([0, 1, 1], np.int32), names[:2]).fingerprint
    store = create_store(tmp_path / "v.zarr", named_spec("tiny").spec(vocab), vocab.mapping, ENCODINGS["float32"], 32)
    TableStore.open(store.path).check_vocab(own)
    with pytest.raises(EngramError, match=f"was addressed with vocabulary {own}, but the one given is {other}") as refused:
        store.check_vocab(other)
    assert refused.value.hint == "use the vocab.parquet that the tables were made with"


def test_nothing_there() -> None:
    with pytest.raises(EngramError, match="no such table store"):
        TableStore.open(Path("nowhere.zarr"))
    with pytest.raises(EngramError, match="no such checkpoint folder"):
        read_checkpoint(Path("nowhere"))
    with pytest.raises(EngramError, match="no such folder"):
        verify(Path("nowhere"))
