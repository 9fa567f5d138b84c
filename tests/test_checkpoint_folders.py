"""Checkpoint folders in all the forms that are valid, and in those that would be misread, waited for or never finished."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hashing.base.errors import EngramError
from table.checkpoints.family import read_checkpoint
from table.checkpoints.safetensors_file import read_header
from table.verify import verify
from tests.checkpoints import INDEX, deepseek, qwen
from tests.commands import engram
from tests.lies import Lie, change_bytes, change_config, change_json

TABLE_FILE = "model-00002-of-00003.safetensors"
WEIGHT = "layers.1.engram.embed.weight"


@pytest.fixture
def deepseek_folder(tmp_path: Path) -> Path:
    return deepseek(tmp_path / "in", base=300).folder


@pytest.fixture
def qwen_folder(tmp_path: Path) -> Path:
    return qwen(tmp_path / "in", torch.bfloat16, base=300).folder


def without_keys(*names: str) -> Lie:
    return lambda folder: change_json(folder / "config.json", lambda c: [c["text_config"].pop(name) for name in names].clear())


VALID: dict[str, Lie] = {
    "several ends of text, of which the model takes the first": change_config(eos_token_id=[7, 9]),
    "the library's own sizes": without_keys("ngram_size", "make_ngram_vocab_size_divisible_by"),
    "the library's own seed": change_config(seed=1234),
    "blocks named twice": change_config(ple_layer_ids=[2, 2]),
    "rows as wide as the model, said by null": change_config(hidden_size=1280, ple_embed_dim=None),
    "rows as wide as the model": lambda folder: [
        change_config(hidden_size=1280)(folder),
        without_keys("ple_embed_dim")(folder),
    ],
}


@pytest.mark.parametrize("name", VALID)
def test_what_transformers_accepts_is_accepted(qwen_folder: Path, name: str) -> None:
    before = read_checkpoint(qwen_folder).check()
    VALID[name](qwen_folder)
    after = read_checkpoint(qwen_folder).check()
    assert after.spec == before.spec
    assert after.head_dim == before.head_dim


@pytest.mark.parametrize("key", ["heads_per_ngram", "split_ngram_parts", "ngram_vocab_size_base"])
def test_a_key_left_out_is_the_library_s_and_not_guessed(qwen_folder: Path, key: str) -> None:
    without_keys(key)(qwen_folder)
    assert read_checkpoint(qwen_folder).faults


@pytest.mark.parametrize(("value", "message"), [([], r"is \[\], expected"), (None, "is None, expected"), ([1, "a"], "is 'a'")])
def test_an_end_of_text_that_is_none_is_refused(qwen_folder: Path, value: object, message: str) -> None:
    change_config(eos_token_id=value)(qwen_folder)
    with pytest.raises(EngramError, match=f"eos_token_id {message}"):
        read_checkpoint(qwen_folder)


def add_foreign_table(folder: Path) -> None:
    name = "model.layers.1.ple.ple_embedding.ngram_embedding.shard_0.weight"
    change_json(folder / INDEX, lambda content: content["weight_map"].update({name: TABLE_FILE}))


def hold_twice(folder: Path) -> None:
    first = folder / "model-00001-of-00003.safetensors"
    save_file({**load_file(first), WEIGHT: torch.zeros(2, 2)}, first)


def pipe(name: str) -> Lie:
    def lie(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return lie


def large(name: str) -> Lie:
    return lambda folder: os.truncate(folder / name, 300 << 20)


def other_header(change: Callable[[bytes], bytes]) -> Lie:
    def lie(folder: Path) -> None:
        whole = (folder / TABLE_FILE).read_bytes()
        length = int.from_bytes(whole[:8], "little")
        header = change(whole[8 : 8 + length])
        (folder / TABLE_FILE).write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + length :])

    return lie


def surrogate_index(folder: Path) -> None:
    (folder / INDEX).write_text((folder / INDEX).read_text().replace(WEIGHT, "half \\ud800"))


REFUSED: dict[str, tuple[Lie, str]] = {
    "both families' keys": (change_config(ple_layer_ids=[2]), "has both engram_layer_ids and ple_layer_ids"),
    "the other family's key outside text_config": (
        lambda folder: change_json(folder / "config.json", lambda content: content.update(ple_layer_ids=[2])),
        "has both engram_layer_ids and ple_layer_ids",
    ),
    "the other family's table": (add_foreign_table, "is of the family deepseek-v4.1, but holds model.layers.1.ple"),
    "a tensor in two files": (hold_twice, f"{WEIGHT} is in two files, {TABLE_FILE} and model-00001-of-00003.safetensors"),
    "more canonical ids than tokens": (
        change_config(engram_compressed_vocab_size=129281),
        "engram_compressed_vocab_size is 129281, expected 1 to 129280",
    ),
    "a hundred thousand layers": (
        change_config(engram_layer_ids=list(range(100_000))),
        "100,000 layers of 3 orders of 2 heads need",
    ),
    "a layer beyond all": (change_config(engram_layer_ids=[1, 10**12]), "layer 1000000000000 is beyond 99999"),
    "a pipe for a configuration": (pipe("config.json"), r"config\.json is no file"),
    "a pipe for an index": (pipe(INDEX), r"index\.json is no file"),
    "a pipe for a table": (pipe(TABLE_FILE), f"{TABLE_FILE} is no file"),
    "a pipe for a tokenizer": (pipe("tokenizer.json"), r"tokenizer\.json is no file"),
    "a configuration of 300 MB": (large("config.json"), r"config\.json is 314,572,800 bytes long, expected 16,777,216"),
    "an index of 300 MB": (large(INDEX), r"index\.json is 314,572,800 bytes long, expected"),
    "half a surrogate pair in the index": (surrogate_index, "half a surrogate pair"),
    "a name twice in a header": (
        other_header(lambda h: h[:1] + b'"a":{},"a":{},' + h[1:]),
        "header is not JSON: it has the key 'a' twice",
    ),
    "a header in UTF-16": (other_header(lambda h: h.decode().encode("utf-16")), "header is not JSON"),
    "a NUL in a header": (other_header(lambda h: h.replace(b"q_weight", b"q\\u0000weight")), "holds a NUL"),
    "half a surrogate pair in a header": (other_header(lambda h: h.replace(b"q_weight", b"q\\udfff")), "half a surrogate pair"),
    "a shape without end": (other_header(lambda h: h.replace(b"[3,7]", b"[" + b"9," * 99 + b"9]")), "has 100 dimensions"),
    "a shape of true": (other_header(lambda h: h.replace(b"[3,7]", b"[true,21]")), "no whole numbers"),
    "an index named outside in another way": (
        lambda folder: change_json(folder / INDEX, lambda content: content["weight_map"].update({WEIGHT: "x" * 300})),
        "names a file outside the folder",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_would_be_misread_is_refused_at_once(deepseek_folder: Path, name: str) -> None:
    lie, message = REFUSED[name]
    lie(deepseek_folder)
    with pytest.raises(EngramError, match=message):
        read_checkpoint(deepseek_folder).check()
    assert verify(deepseek_folder).faults


def test_a_vocabulary_beyond_all_is_refused_before_it_is_counted(qwen_folder: Path) -> None:
    change_config(vocab_size=1 << 31)(qwen_folder)
    with pytest.raises(EngramError, match="vocab_size is 2147483648, expected 1 to 16777216"):
        read_checkpoint(qwen_folder)


def test_more_parts_than_tensors_are_refused(qwen_folder: Path) -> None:
    rows = read_checkpoint(qwen_folder).spec.rows(1)
    change_config(split_ngram_parts=rows)(qwen_folder)
    with pytest.raises(EngramError, match=f"split_ngram_parts is {rows}, but the index has"):
        read_checkpoint(qwen_folder).check()


def test_the_headers_above_are_changed_where_they_say(deepseek_folder: Path) -> None:
    file = read_header(deepseek_folder / TABLE_FILE)
    assert [t.name for t in file.tensors.values() if t.shape == (3, 7)] == ["layers.1.engram.q_weight"]
    change_bytes(file.path, 0, b"\xff" * 8)
    assert "header would be 18,446,744,073,709,551,615 bytes long" in verify(deepseek_folder).faults[0]


def test_a_size_that_nothing_proves_is_noted(deepseek_folder: Path, tmp_path: Path) -> None:
    (note,) = read_checkpoint(deepseek_folder).notes
    assert "no tokenizer.json to prove engram_compressed_vocab_size 99,092" in note
    assert verify(deepseek_folder).notes == [note]
    done = engram("table", "import", deepseek_folder, "--out", tmp_path / "t.zarr", "--json")
    assert done.returncode == 0
    assert note in done.stderr
    assert json.loads(done.stdout)["canonical_ids"] == 99_092
