"""Stores and checkpoints with random changes in what describes them: whatever is read, only our own error comes out.

A change replaces a value of the JSON by another kind of value or by one from elsewhere in it, removes a key, or adds
one; the manifest's checksum is made right again, and a header keeps its length, so that the change is reached. With
ENGRAM_FUZZ_EXAMPLES=20000 in the environment the same tests look longer.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hashing.base.errors import EngramError
from table.checkpoints.demo import read_demo
from table.checkpoints.exporter import export
from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from table.checkpoints.published import Checkpoint
from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore
from table.verify import verify
from tests.checkpoints import INDEX, deepseek, qwen
from tests.stores import forge, spec_of_heads

fuzz = settings(
    max_examples=int(os.environ.get("ENGRAM_FUZZ_EXAMPLES", "30")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

HEADS = (5, 7, 11, 13)  # rows of a state dict's heads
NUMBERS = [0, 1, -1, 2, 7, 128, 9210, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan")]
TEXTS = [
    "",
    "1",
    "14",
    "01",
    "-1",
    "x",
    "..",
    "../../x",
    "/x",
    "a\0b",
    "\ud800",
    "é",
    "codes",
    "scales",
    "F32",
    "F8_E4M3",
    "x" * 300,
]
LEAVES = st.sampled_from([None, True, False, *NUMBERS, *TEXTS])
VALUES = st.one_of(LEAVES, st.lists(LEAVES, max_size=3), st.dictionaries(st.sampled_from(TEXTS), LEAVES, max_size=3))

Places = list[tuple[Any, Any]]  # an object or a list, and a key or an index in it


def places(content: Any) -> Places:
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    return [(content, key) for key in keys] + [place for key in keys for place in places(content[key])]


def change(content: Any, data: st.DataObject) -> None:
    """Makes one change somewhere in a JSON document."""
    parent, key = data.draw(st.sampled_from(places(content)))
    way = data.draw(st.sampled_from(["replace", "copy", "remove", "add", "near"]))
    if way == "remove":
        del parent[key]
    elif way == "add" and isinstance(parent, dict):
        parent[data.draw(st.sampled_from(TEXTS))] = data.draw(VALUES)
    elif way == "copy":
        other, name = data.draw(st.sampled_from(places(content)))
        parent[key] = deepcopy(other[name])
    elif way == "near" and type(parent[key]) is int:
        parent[key] += data.draw(st.integers(-3, 3))
    else:
        parent[key] = data.draw(VALUES)


def change_some(content: Any, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        if places(content):
            change(content, data)


def change_text(text: bytes, data: st.DataObject) -> bytes:
    """Puts a few bytes in the place of others."""
    begin = data.draw(st.integers(0, len(text)))
    put = data.draw(
        st.one_of(
            st.binary(max_size=4), st.sampled_from([b'"', b"{", b"[", b"\\ud800", b"\\u0000", b'"a":1,"a":2,', b"9" * 50])
        )
    )
    return text[:begin] + put + text[begin + data.draw(st.integers(0, 4)) :]


def refusal(work: Callable[[], object]) -> str | None:
    """What our own error says that ends the work, or None when none does. Any other exception fails the test."""
    try:
        work()
    except EngramError as e:
        return str(e)
    return None


def assert_told(refusals: Iterable[str | None]) -> None:
    """Every refusal is a text that a terminal takes."""
    assert all(told is None or told.encode() for told in refusals)


def assert_store_is_used_or_refused(path: Path, out: Path) -> None:
    """All that is done with a store; what cannot be opened does not pass verification either."""
    ways: list[Callable[[TableStore], object]] = [
        lambda store: [store.table(layer).gather(np.array([0, store.spec.rows(layer) - 1])) for layer in store.spec.layers],
        lambda store: export(store, out / "files"),
        lambda store: convert(store, out / "c.zarr", ENCODINGS["int8"]),
    ]
    faults = verify(path, full=True).faults
    assert_told(faults)
    if told := refusal(lambda: TableStore.open(path)):
        assert_told([told])
        assert faults
    else:
        store = TableStore.open(path)
        assert_told([refusal(lambda way=way: way(store)) for way in ways])  # type: ignore[misc]
    shutil.rmtree(out, ignore_errors=True)


def import_unless_refused(read: Callable[[], Checkpoint], out: Path) -> str | None:
    """Reads a checkpoint and imports it; gives why it was refused before that, if it was."""
    told = refusal(lambda: read().check())
    assert_told([told])
    if told is None:
        checkpoint = read()
        assert_told([refusal(lambda: Import(checkpoint, checkpoint.encoding).run(out / "t.zarr"))])
    shutil.rmtree(out, ignore_errors=True)
    return told


def assert_state_dict_is_imported_or_refused(path: Path, out: Path) -> None:
    import_unless_refused(lambda: read_demo(path, spec_of_heads(HEADS), np.empty(0, np.int32)), out)


def assert_folder_is_imported_or_refused(folder: Path, out: Path) -> None:
    """All that is done with a checkpoint's folder; what is refused does not pass verification either."""
    faults = verify(folder, full=True).faults
    assert_told(faults)
    if import_unless_refused(lambda: read_checkpoint(folder), out):
        assert faults


@pytest.fixture(scope="module", params=["deepseek", "qwen bf16", "qwen fp8"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint of some kilobytes, with a store imported from it beside."""
    folder = tmp_path_factory.mktemp("fuzz") / "in"
    if request.param == "deepseek":
        deepseek(folder, base=50, head_dim=32)
    else:
        qwen(folder, torch.bfloat16 if "bf16" in request.param else torch.float8_e4m3fn, base=50, parts=2)
    found = read_checkpoint(folder).check()
    Import(found, found.encoding).run(folder.parent / "t.zarr")
    return folder


@contextlib.contextmanager
def restored(file: Path) -> Any:
    """A file's bytes, which are put back at the end."""
    before = file.read_bytes()
    try:
        yield before
    finally:
        file.write_bytes(before)


@fuzz
@given(data=st.data())
def test_a_manifest_with_changes(checkpoint: Path, data: st.DataObject) -> None:
    store = checkpoint.parent / "t.zarr"
    with restored(store / "zarr.json"):
        forge(store, lambda manifest: change_some(manifest, data))
        assert_store_is_used_or_refused(store, checkpoint.parent / "out")


@fuzz
@given(data=st.data())
def test_a_manifest_with_other_bytes(checkpoint: Path, data: st.DataObject) -> None:
    store = checkpoint.parent / "t.zarr"
    with restored(store / "zarr.json") as text:
        (store / "zarr.json").write_bytes(change_text(text, data))
        assert_store_is_used_or_refused(store, checkpoint.parent / "out")


@pytest.mark.parametrize("name", ["config.json", INDEX])
@fuzz
@given(data=st.data())
def test_a_configuration_or_an_index_with_changes(checkpoint: Path, name: str, data: st.DataObject) -> None:
    with restored(checkpoint / name) as text:
        content = json.loads(text)
        change_some(content, data)
        (checkpoint / name).write_bytes(json.dumps(content).encode())
        assert_folder_is_imported_or_refused(checkpoint, checkpoint.parent / "out")
        (checkpoint / name).write_bytes(change_text(text, data))
        assert_folder_is_imported_or_refused(checkpoint, checkpoint.parent / "out")


def changed_header(whole: bytes, data: st.DataObject) -> bytes:
    """A safetensors file with another header, and sometimes another length of it."""
    length = int.from_bytes(whole[:8], "little")
    text = whole[8 : 8 + length]
    if data.draw(st.booleans()):
        header = json.loads(text)
        change_some(header, data)
        changed = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    else:
        changed = change_text(text, data)
    said = data.draw(st.sampled_from([len(changed), len(changed), length, 0, 2**63, 2**64 - 1]))
    return said.to_bytes(8, "little") + changed + whole[8 + length :]


@fuzz
@given(data=st.data())
def test_a_header_with_changes(checkpoint: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(checkpoint.glob("*.safetensors"))))
    with restored(file) as whole:
        file.write_bytes(changed_header(whole, data))
        assert_folder_is_imported_or_refused(checkpoint, checkpoint.parent / "out")


@pytest.fixture(scope="module")
def state_dict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "demo.safetensors"
    offsets = torch.tensor([0, *HEADS[:-1]]).cumsum(0)
    save_file({"multi_head_embedding.embedding.weight": torch.ones(sum(HEADS), 4), "head_offsets": offsets}, path)
    checkpoint = read_demo(path, spec_of_heads(HEADS), np.empty(0, np.int32)).check()
    Import(checkpoint, checkpoint.encoding).run(path.with_name("t.zarr"))
    return path


@fuzz
@given(data=st.data())
def test_a_state_dict_s_header_with_changes(state_dict: Path, data: st.DataObject) -> None:
    with restored(state_dict) as whole:
        state_dict.write_bytes(changed_header(whole, data))
        assert_state_dict_is_imported_or_refused(state_dict, state_dict.parent / "out")
