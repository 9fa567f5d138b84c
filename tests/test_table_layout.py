"""Where exported rows go is proven: a manifest or a kept header that sends them elsewhere is refused at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hashing.base.errors import EngramError
from table.checkpoints.exporter import export
from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.checksum import crc_text
from table.store.manifest import origin_path
from table.store.store import TableStore
from table.verify import verify
from tests.checkpoints import INDEX, deepseek, qwen
from tests.folders import assert_same_files
from tests.lies import change_json
from tests.stores import forge

Forgery = Callable[[dict[str, Any]], object]


def imported(folder: Path) -> TableStore:
    checkpoint = read_checkpoint(folder).check()
    return Import(checkpoint, checkpoint.encoding).run(folder.with_name("t.zarr"))


def scales_apart(folder: Path) -> None:
    """Moves a layer's scales into the first file."""
    first, table = (folder / f"model-0000{i}-of-00003.safetensors" for i in (1, 2))
    tensors, name = load_file(table), "layers.1.engram.embed.scale"
    save_file({**load_file(first), name: tensors.pop(name)}, first)
    save_file(tensors, table)
    change_json(folder / INDEX, lambda content: content["weight_map"].update({name: first.name}))


def test_scales_in_another_file_than_their_codes_come_back(tmp_path: Path) -> None:
    folder = deepseek(tmp_path / "in", base=300).folder
    scales_apart(folder)
    assert verify(folder, full=True).faults == []
    store = imported(folder)
    assert verify(store.path, full=True).faults == []
    export(store, tmp_path / "out")
    assert_same_files(tmp_path / "out", folder)
    assert sum(file.suffix == ".safetensors" for file in (tmp_path / "out").iterdir()) == 3


@pytest.mark.parametrize("apart", [False, True])
def test_the_hint_for_another_encoding_leads_to_an_export(tmp_path: Path, apart: bool) -> None:
    folder = deepseek(tmp_path / "in", base=300).folder
    if apart:
        scales_apart(folder)
    other = convert(imported(folder), tmp_path / "u.zarr", ENCODINGS["float32"])
    with pytest.raises(EngramError, match="holds float32 rows, but the checkpoint had e4m3-e8m0") as refused:
        export(other, tmp_path / "out")
    hinted = refused.value.hint.rpartition(" ")[2]
    export(convert(other, tmp_path / "v.zarr", ENCODINGS[hinted]), tmp_path / "out")
    assert verify(tmp_path / "out", full=True).faults == []


def cut(m: dict[str, Any], file: int = 2, position: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = m["origin"]["files"][file]["cuts"][position]
    return found


FORGERIES: dict[str, tuple[Forgery, str]] = {
    "a cut far outside": (lambda m: cut(m).update(first_row=10**6), "begins at row 1000000, expected 0 to"),
    "a cut before the table": (lambda m: cut(m).update(first_row=-1), "first_row is -1, expected 0 to"),
    "a cut of a layer without a table": (lambda m: cut(m).update(layer=2), "is of layer 2, which has no table"),
    "a plane that is none": (lambda m: cut(m).update(plane="hats"), "plane is 'hats', expected one of codes, scales"),
    "a tensor cut twice": (lambda m: cut(m).update(tensor=cut(m, position=1)["tensor"]), "is cut out twice"),
    "a cut in words": (lambda m: m["origin"]["files"][2].update(cuts=["all"]), "cuts is 'all', expected a list of objects"),
    "cuts in words": (lambda m: m["origin"]["files"][2].update(cuts="all"), "cuts is 'all', expected a list"),
    "a cut with another key": (lambda m: cut(m).update(colour=1), "unknown: colour"),
    "a file twice": (lambda m: m["origin"]["files"][2].update(name="config.json"), "same name"),
    "kept bytes in words": (lambda m: m["origin"]["files"][2].update(kept_bytes="many"), "kept_bytes is 'many', expected"),
    "no kept bytes": (lambda m: m["origin"]["files"][2].update(kept_bytes=0), "kept_bytes is 0, expected 1 to"),
    "a checksum in a list": (lambda m: m["origin"]["files"][2].update(crc32c=[]), "crc32c is .*, expected a text"),
    "a map without tokens": (lambda m: m.update(canonical={"tokens": 0, "crc32c": "0" * 8}), "tokens is 0, expected 1 to"),
    "a map in a list": (lambda m: m.update(canonical=[]), "canonical is .*, expected an object"),
    "endless shards": (lambda m: m["layers"]["1"].update(shard_rows=float("inf")), "shard_rows is inf, expected a whole"),
    "a shard beyond memory": (lambda m: m["layers"]["1"].update(shard_rows=1 << 62), "has shards of .* rows, but"),
    "a layer with two names": (lambda m: m["layers"].update({"01": m["layers"]["1"]}), "has the key '01'"),
    "a shard without checksum": (lambda m: m["layers"]["1"].update(shards={"0": ""}), "0 is '', expected a text of the form"),
    "a true format": (lambda m: m.update(format=True), "is of format True"),
    "a step before the first": (lambda m: m.update(step=-1), "step is -1, expected 0 to"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    return imported(deepseek(tmp_path_factory.mktemp("layout") / "in", base=300).folder)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_manifest_that_is_no_such_thing_is_refused(table: TableStore, name: str) -> None:
    forgery, message = FORGERIES[name]
    before = (table.path / "zarr.json").read_bytes()
    forge(table.path, forgery)
    try:
        with pytest.raises(EngramError, match=rf"t\.zarr cannot be used: .*{message}"):
            TableStore.open(table.path)
    finally:
        (table.path / "zarr.json").write_bytes(before)


def other_header(store: TableStore, old: bytes, new: bytes) -> Forgery:
    """Changes what is kept of the third file, and gives it the right checksum."""
    path = origin_path(store.path, 2)
    kept = path.read_bytes()
    assert old in kept
    changed = kept.replace(old, new, 1)
    path.write_bytes(changed)
    return lambda m: m["origin"]["files"][2].update(crc32c=crc_text(changed))


LAYOUTS: dict[str, tuple[Callable[[TableStore], Forgery], str]] = {
    "a row off": (lambda _: lambda m: cut(m).update(first_row=1), "from row 1 on, expected 0"),
    "a plane for the other": (
        lambda _: lambda m: cut(m).update(plane="scales"),
        "the tensors of layer 1 are of dtype none, expected one",
    ),
    "another layer's rows": (
        lambda _: lambda m: [c.update(layer=14) for c in m["origin"]["files"][2]["cuts"]].clear(),
        "has the codes of layer 14 from row 0 on, expected 1,916",
    ),
    "no such tensor": (lambda _: lambda m: cut(m).update(tensor="nosuch"), "lacks nosuch, which the manifest says"),
    "a tensor that stays": (lambda _: lambda m: m["origin"]["files"][2]["cuts"].pop(), "are kept of .*, but its header leaves"),
    "another dtype": (lambda store: other_header(store, b"F8_E4M3", b"F8_E5M2"), "are of dtype F8_E5M2, expected one"),
    "a header without end": (
        lambda store: other_header(store, origin_path(store.path, 2).read_bytes()[:8], b"\xff" * 8),
        "not JSON",
    ),
    "another length of rows": (lambda store: other_header(store, b"[1916,256]", b"[3832,128]"), "expected 256 bytes a row"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_are_not_exported_to_where_they_were_not(tmp_path: Path, name: str) -> None:
    store = imported(deepseek(tmp_path / "in", base=300).folder)
    forge(store.path, LAYOUTS[name][0](store))
    with pytest.raises(EngramError, match=LAYOUTS[name][1]):
        export(TableStore.open(store.path), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "t.zarr"]


def test_parts_of_a_table_hold_each_row_once(tmp_path: Path) -> None:
    store = imported(qwen(tmp_path / "in", torch.bfloat16, base=300).folder)
    parts = [c for file in store.manifest.origin.files for c in file.cuts] if store.manifest.origin else []
    assert len(parts) == 4
    forge(store.path, lambda m: m["origin"]["files"][2]["cuts"][1].update(first_row=0))
    with pytest.raises(EngramError, match=r"has the codes of layer 1 from row 0 on, expected \d+"):
        export(TableStore.open(store.path), tmp_path / "out")
