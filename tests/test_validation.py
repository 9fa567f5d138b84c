"""The validation loss of a run's model with other tables in place of its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.run import Run
from runtime.train.trainer import Trainer
from runtime.validation import validate_stores
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore, create_store, write_store
from tests.commands import document


def test_its_own_tables_give_what_training_measured(trained_run: Run) -> None:
    measured = json.loads((trained_run.train_folder / "metrics.jsonl").read_text().splitlines()[-1])
    (found,) = validate_stores(trained_run, [TableStore.open(trained_run.tables_path)])
    assert found.nats_per_token == measured["validation_nats"]
    assert found.bits_per_byte == measured["bits_per_byte"]


def test_rows_of_zeros_are_no_memory(trained_run: Run, tmp_path: Path) -> None:
    own = TableStore.open(trained_run.tables_path)
    zeros = {layer: np.zeros((own.spec.rows(layer), own.head_dim), np.float32) for layer in own.spec.layers}
    write_store(tmp_path / "zeros.zarr", own.spec, own.mapping, zeros, own.step)
    without = Trainer.resume(trained_run).validate(memory=False)
    own_loss, zero_loss = validate_stores(trained_run, [own, TableStore.open(tmp_path / "zeros.zarr")])
    assert zero_loss.nats_per_token == pytest.approx(without.nats_per_token, rel=1e-6)
    assert abs(zero_loss.nats_per_token - own_loss.nats_per_token) > 1e-4


def test_tables_of_another_training_are_not_judged(trained_run: Run, tmp_path: Path) -> None:
    own = TableStore.open(trained_run.tables_path)
    fresh = create_store(tmp_path / "fresh.zarr", own.spec, own.mapping, ENCODINGS["float32"], own.head_dim)
    assert validate_stores(trained_run, [own, fresh]) == []
    assert validate_stores(Run(tmp_path), [own]) == []


def test_convert_reports_the_change(trained_run: Run, tmp_path: Path) -> None:
    def convert(*arguments: object) -> dict[str, Any]:
        return document("table", "convert", *arguments)

    report = convert("--run", trained_run.folder, "--encoding", "int4", "--out", tmp_path / "int4.zarr")
    before, after = report["validation"]["before"], report["validation"]["after"]
    assert 0 < abs(after["nats_per_token"] - before["nats_per_token"]) < 0.1 * before["nats_per_token"]
    assert after["bits_per_byte"] / before["bits_per_byte"] == pytest.approx(after["nats_per_token"] / before["nats_per_token"])
    int4 = tmp_path / "int4.zarr"
    again = convert(int4, "--run", trained_run.folder, "--encoding", "float32", "--out", tmp_path / "f.zarr")
    assert again["validation"]["before"] == again["validation"]["after"] == after
    alone = convert(int4, "--run", tmp_path, "--encoding", "int8", "--out", tmp_path / "i.zarr")
    assert alone["validation"] is None
