"""What a command shows a person has the figures of the JSON document that it prints on request."""

from pathlib import Path

import pytest

from runtime.run import Run
from tests.checkpoints import deepseek
from tests.commands import document, engram, refused


def shown(*arguments: object) -> str:
    """What a command prints without --json."""
    done = engram(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and the store imported from it."""
    folder = tmp_path_factory.mktemp("shown")
    deepseek(folder / "checkpoint", base=300)
    shown("table", "import", folder / "checkpoint", "--out", folder / "t.zarr")
    return folder


def test_hash(trained_run: Run) -> None:
    call = ("hash", "def parse", "--run", trained_run.folder)
    told, printed = document(*call), shown(*call)
    assert all(f"{row:,}" in printed for table in told["rows"].values() for rows in table for row in rows)
    assert all(f"{i:,}" in printed for i in (*told["token_ids"], *told["canonical_ids"]))


def test_inspect_ngram(trained_run: Run) -> None:
    call = ("inspect", "ngram", "def parse", "--run", trained_run.folder)
    told, printed = document(*call), shown(*call)
    reads = [order for layer in told["layers"].values() for order in layer["orders"].values()]
    assert reads
    assert all(f"{row:,}" in printed for order in reads for row in order["rows"])
    assert all(f"{norm:.4f}" in printed for order in reads for norm in order["row_norms"])


def test_generate(trained_run: Run) -> None:
    call = ("generate", "def ", "--max-tokens", 5, "--run", trained_run.folder)
    assert shown(*call) == f"def {document(*call)['text']}\n"


def test_build_vocab_shows_classes_and_differences(trained_run: Run, tmp_path: Path) -> None:
    shown("build-vocab", trained_run.folder, "--rule", "identity", "--run", tmp_path / "raw")
    call = ("build-vocab", "--run", trained_run.folder, "--show", "Self", "--against", tmp_path / "raw" / "vocab.parquet")
    told, printed = document(*call), shown(*call)
    assert all(repr(found["key"]) in printed for found in told["show"])
    assert f"{told['against']['first_moved']:,} on" in printed
    assert f"{len(told['against']['changed_keys']):,} read differently" in printed


@pytest.mark.parametrize("spec", ["deepseek-v4.1", "engram-27b"])
def test_plan(spec: str) -> None:
    told, printed = document("plan", "--spec", spec), shown("plan", "--spec", spec)
    assert f"{told['parameters']:,} parameters" in printed
    assert f"reads {told['reads_per_token']} rows" in printed
    assert all(f"{layer['rows']:,}" in printed for layer in told["layers"].values())


def test_table_info(folder: Path) -> None:
    call = ("table", "info", folder / "t.zarr", "--resident")
    told, printed = document(*call), shown(*call)
    assert told["resident_bytes"] > 0
    assert f"spec {told['spec_fingerprint']}" in printed
    assert f"origin: {told['origin']['kind']}" in printed
    assert all(f"{layer['rows']:,}" in printed for layer in told["layers"].values())


def test_table_import_tells_what_it_would_write(folder: Path, tmp_path: Path) -> None:
    call = ("table", "import", folder / "checkpoint", "--out", tmp_path / "t.zarr", "--dry-run")
    told, printed = document(*call), shown(*call)
    assert f"({told['written_bytes']:,} bytes) written" in printed
    assert f"{sum(told['layers'].values()):,} rows of layers 1, 14" in printed
    assert list(tmp_path.iterdir()) == []


def test_table_convert(folder: Path, tmp_path: Path) -> None:
    call = ("table", "convert", folder / "t.zarr", "--encoding", "int8", "--run", tmp_path, "--force", "--out")
    told, printed = document(*call, tmp_path / "a.zarr"), shown(*call, tmp_path / "b.zarr")
    assert f"{told['source_row_bytes']} to {told['row_bytes']} bytes a row" in printed
    assert all(f"{error['snr_db']:.1f}" in printed for error in told["layers"].values())


def test_a_spec_in_json_needs_a_width(trained_run: Run, tmp_path: Path) -> None:
    spec = trained_run.spec()
    spec.save(tmp_path / "spec.json")
    refused(engram("plan", "--spec", tmp_path / "spec.json"), 2, "does not say how wide a row is\nhint: give --head-dim")
    told = document("plan", "--spec", tmp_path / "spec.json", "--head-dim", 32)
    assert {int(layer): table["rows"] for layer, table in told["layers"].items()} == {n: spec.rows(n) for n in spec.layers}


def test_a_state_dict_needs_a_spec(tmp_path: Path) -> None:
    (tmp_path / "demo.safetensors").write_bytes(b"")
    done = engram("table", "import", tmp_path / "demo.safetensors", "--out", tmp_path / "t.zarr")
    refused(done, 2, "does not say how its rows are addressed\nhint: give --spec NAME")
