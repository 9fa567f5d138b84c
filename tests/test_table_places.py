"""Where tables may be written: nothing that is read, and nothing of another kind, is ever replaced."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hashing.base.atomic import install, partial_path, refuse_overwrite
from hashing.base.errors import EngramError, UsageError
from table.checkpoints.exporter import export
from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore
from table.store.writer import StoreWriter
from table.verify import verify
from tests.checkpoints import deepseek
from tests.folders import contents
from tests.stores import forge

Write = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint, and the store imported from it."""
    deepseek(tmp_path / "checkpoint", base=300)
    import_to(tmp_path)(tmp_path / "t.zarr")
    return tmp_path


def import_to(folder: Path) -> Write:
    checkpoint = read_checkpoint(folder / "checkpoint")
    return Import(checkpoint, checkpoint.encoding).run


def convert_to(folder: Path) -> Write:
    return lambda out: convert(TableStore.open(folder / "t.zarr"), out, ENCODINGS["int8"])


def export_to(folder: Path) -> Write:
    return lambda out: export(TableStore.open(folder / "t.zarr"), out)


WAYS = {"import": (import_to, "checkpoint"), "convert": (convert_to, "t.zarr"), "export": (export_to, "t.zarr")}


@pytest.mark.parametrize("verb", WAYS)
def test_what_is_read_is_not_written_over(folder: Path, verb: str) -> None:
    way, source = WAYS[verb]
    write, before = way(folder), contents(folder)
    for out in (folder / source, folder / source / "inside", folder, folder / "." / source):
        with pytest.raises(UsageError, match="would be written over, into or around"):
            write(out)
    assert contents(folder) == before


@pytest.mark.parametrize("verb", WAYS)
@pytest.mark.parametrize("place", ["out", "out.partial"])
def test_what_is_something_else_is_not_replaced(folder: Path, verb: str, place: str) -> None:
    (folder / place).mkdir()
    (folder / place / "precious").write_text("mine")
    with pytest.raises(EngramError, match=f"{place} holds precious, which is not replaced"):
        WAYS[verb][0](folder)(folder / "out")
    (folder / place / "precious").unlink()
    (folder / place).rmdir()
    (folder / place).write_text("mine")
    with pytest.raises(EngramError, match=f"{place} is in the way: it is no folder"):
        WAYS[verb][0](folder)(folder / "out")
    assert (folder / place).read_text() == "mine"


def test_a_backup_beside_it_stays(folder: Path) -> None:
    (folder / "t.zarr.old").mkdir()
    (folder / "t.zarr.old" / "precious").write_text("mine")
    import_to(folder)(folder / "t.zarr")
    assert (folder / "t.zarr.old" / "precious").read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "t.zarr", "t.zarr.old"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    install(tmp_path / "a", tmp_path / "b")
    assert contents(tmp_path) == ["b/a"]


def test_what_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "a":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        install(tmp_path / "a", tmp_path / "b")
    assert contents(tmp_path) == ["a/a", "b/b"]


def test_one_process_writes_a_store(folder: Path) -> None:
    store = TableStore.open(folder / "t.zarr")
    with StoreWriter(folder / "u.zarr", store.manifest, store.mapping, "a") as writer:
        with pytest.raises(EngramError, match=r"u\.zarr is being written by another process"):
            import_to(folder)(folder / "u.zarr")
        assert writer.partial.exists()
    import_to(folder)(folder / "u.zarr")


@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", "config.json"])
def test_a_checkpoint_that_changes_is_not_imported(folder: Path, name: str) -> None:
    def change(_: int) -> None:
        path = folder / "checkpoint" / name
        path.write_bytes(path.read_bytes())

    checkpoint = read_checkpoint(folder / "checkpoint")
    with pytest.raises(EngramError, match="changed while it was imported"):
        Import(checkpoint, checkpoint.encoding).run(folder / "u.zarr", change)
    assert not (folder / "u.zarr").exists()
    assert verify(partial_path(folder / "u.zarr")).faults


@pytest.mark.parametrize("path", [".", "", "..", "/"])
def test_a_place_without_a_name_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="gives no name to what is to be written"):
        refuse_overwrite(Path(path), force=True)


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a file outside": lambda m: m["origin"]["files"][0].update(name="../../evil"),
    "an absolute file": lambda m: m["origin"]["files"][0].update(name="/tmp/evil"),
    "columns in words": lambda m: m.update(head_dim="many"),
    "columns without end": lambda m: m.update(head_dim=10**12),
    "layers in a list": lambda m: m.update(layers=[1]),
    "a layer without a number": lambda m: m.update(layers={"first": m["layers"]["1"]}),
    "a spec that is none": lambda m: m.update(spec=[]),
    "a step in words": lambda m: m.update(step="last"),
    "an origin that is none": lambda m: m.update(origin=3),
    "a map in words": lambda m: m.update(canonical="all"),
    "a scale that is no number": lambda m: m["layers"]["1"].update(scale=float("nan")),
    "an encoding in a list": lambda m: m.update(encoding=[]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_manifest_is_refused(folder: Path, name: str) -> None:
    forge(folder / "t.zarr", lambda _: None)
    TableStore.open(folder / "t.zarr")
    forge(folder / "t.zarr", FORGERIES[name])
    with pytest.raises(EngramError, match=r"t\.zarr cannot be used: "):
        TableStore.open(folder / "t.zarr")
    assert verify(folder / "t.zarr").faults


CONFIG_LIES: dict[str, tuple[dict[str, Any], str]] = {
    "no ids": ({"engram_compressed_vocab_size": 0}, "engram_compressed_vocab_size is 0, expected 1 to"),
    "endless orders": ({"engram_max_ngram_size": 10**6}, "engram_max_ngram_size is 1000000, expected 2 to 6"),
    "endless heads": ({"engram_n_heads": 10**6}, "engram_n_heads is 1000000, expected 1 to 1024"),
    "endless columns": ({"engram_head_dim": 10**12}, "engram_head_dim is 1000000000000, expected 1 to 65536"),
}


@pytest.mark.parametrize("name", CONFIG_LIES)
def test_absurd_sizes_are_refused_at_once(folder: Path, name: str) -> None:
    keys, message = CONFIG_LIES[name]
    path = folder / "checkpoint" / "config.json"
    content = json.loads(path.read_text())
    content["text_config"].update(keys)
    path.write_text(json.dumps(content))
    with pytest.raises(EngramError, match=message):
        read_checkpoint(folder / "checkpoint")


@pytest.mark.parametrize("text", ["null", "5"])
def test_a_text_config_that_is_no_object(folder: Path, text: str) -> None:
    (folder / "checkpoint" / "config.json").write_text(f'{{"text_config": {text}}}')
    with pytest.raises(EngramError, match=r"config\.json: text_config is (None|5), expected an object"):
        read_checkpoint(folder / "checkpoint")


def test_json_without_bottom_is_refused(folder: Path) -> None:
    (folder / "checkpoint" / "config.json").write_text("[" * 100_000)
    with pytest.raises(EngramError, match=r"config\.json is not JSON"):
        read_checkpoint(folder / "checkpoint")
    (folder / "t.zarr" / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(EngramError, match="is not a table store"):
        TableStore.open(folder / "t.zarr")


def test_a_tokenizer_that_is_not_there(folder: Path) -> None:
    with pytest.raises(EngramError, match=r"no such tokenizer: nosuch\.json"):
        read_checkpoint(folder / "checkpoint", Path("nosuch.json"))
