"""Rows on disk are those in memory, to the bit; a crash loses nothing but the steps since the last checkpoint."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hashing.base.errors import EngramError, UsageError
from hashing.text.corpus import Corpus
from runtime.checkpoints import checkpoints
from runtime.config import RowRule
from runtime.run import Run
from runtime.train.choice import chosen_settings
from runtime.train.disk_rows import DiskRows
from runtime.train.new_rows import NewRows
from runtime.train.record_file import RecordFile
from runtime.train.row_table import RowTable
from runtime.train.rows import BatchRows, OwnRows, Rows
from runtime.train.trainer import Trainer
from runtime.train.undo_journal import UndoJournal, entries, journal_path, journaled_steps
from tests.commands import document, engram, largest_file, refused
from tests.runs import content
from tests.test_killed_training import killed_and_undisturbed

ROWS, WIDTH = 500, 6
RULES: list[RowRule] = ["adam", "rowwise_adam", "sinkhorn"]
SETS = ["recipe.batch=4", "recipe.length=16", "recipe.sample_tokens=0", "recipe.evaluations=2", "memory.rows_per_head=20_000"]


def record_file(folder: Path, rule: RowRule = "adam", momentum: float | None = None, rows: int = ROWS) -> RecordFile:
    return RecordFile(folder / "0.rows", rows, WIDTH, NewRows(3, 0.02), rule, momentum)


def disk_rows(folder: Path, rule: RowRule = "adam", momentum: float | None = None) -> DiskRows:
    return DiskRows({0: record_file(folder, rule, momentum)}, torch.device("cpu"))


def stepped(rows: Rows, steps: range, before: BatchRows | None = None) -> BatchRows:
    """Steps by gradients that depend on what was read, so that a stale row shows; each batch is asked for a step ahead."""
    asked = [np.random.default_rng(step).integers(0, ROWS, (1, 30, 4)) for step in range(steps.stop + 1)]
    batch = rows.ask({0: asked[steps.start]}, before)
    for step in steps:
        batch.settle()
        following = rows.ask({0: asked[step + 1]}, batch)
        vectors = batch.leaves[0].batch_vectors()
        (vectors**2 + vectors * step).sum().backward()
        batch.write(0.01, step + 1)
        batch = following
    return batch


@pytest.mark.parametrize("momentum", [None, 0.0])
@pytest.mark.parametrize("rule", RULES)
def test_steps_are_those_in_memory(tmp_path: Path, rule: RowRule, momentum: float | None) -> None:
    table = RowTable.create(ROWS, WIDTH, 0.02, 3, torch.device("cpu"), rule, momentum)
    own, disk = OwnRows({0: table}), disk_rows(tmp_path, rule, momentum)
    disk.begin(0)
    stepped(own, range(8))
    stepped(disk, range(8))
    rows = np.arange(ROWS).reshape(1, -1, 1)
    assert torch.equal(disk.fetch({0: rows})(0), own.fetch({0: rows})(0))
    records = disk.files[0].read(np.arange(ROWS))
    kept = [tensor.view(ROWS, -1).view(torch.float32).numpy() for tensor in table.state().values()]
    assert np.array_equal(records.view(np.int32), np.concatenate(kept, axis=1).view(np.int32))
    vectors = np.empty((ROWS - 7, WIDTH), np.float32)
    disk.files[0].fill(7, vectors.view(np.uint8).reshape(ROWS - 7, -1))
    assert np.array_equal(vectors, records[7:, :WIDTH])


def test_what_was_written_since_a_checkpoint_goes_back(tmp_path: Path) -> None:
    disk = disk_rows(tmp_path)
    disk.begin(0)
    stepped(disk, range(3))
    disk.sync()
    (tmp_path / "undo-2").write_bytes(b"of a checkpoint that was followed by another")
    disk.begin(3)
    before = (tmp_path / "0.rows").read_bytes()
    stepped(disk, range(3, 6))
    disk.sync()
    assert (tmp_path / "0.rows").read_bytes() != before
    assert journaled_steps(tmp_path) == {3}
    journaled = np.concatenate([rows for _, rows, _ in entries(tmp_path, 3)])
    assert len(np.unique(journaled)) == len(journaled), "each row once"
    again = disk_rows(tmp_path)
    with pytest.raises(EngramError, match="of step 3 and later, and the newest checkpoint is of step 2"):
        again.roll_back(2)
    again.roll_back(3)
    assert (tmp_path / "0.rows").read_bytes() == before
    assert (journaled_steps(tmp_path), journal_path(tmp_path, 3).stat().st_size) == ({3}, 0)


def test_a_checkpoint_whose_journal_had_not_begun_has_the_rows_as_they_are(tmp_path: Path) -> None:
    """A kill came after the checkpoint had its name: nothing was written since."""
    disk = disk_rows(tmp_path)
    disk.begin(0)
    stepped(disk, range(3))
    disk.sync()
    before = (tmp_path / "0.rows").read_bytes()
    again = disk_rows(tmp_path)
    again.roll_back(3)
    assert (tmp_path / "0.rows").read_bytes() == before
    assert journaled_steps(tmp_path) == {3}


@pytest.mark.parametrize("lost", ["0.rows", "undo-3"])
def test_rows_that_are_not_all_there_are_refused(tmp_path: Path, lost: str) -> None:
    disk_rows(tmp_path).begin(3)
    (tmp_path / lost).unlink()
    for _ in range(2):
        with pytest.raises(
            EngramError, match=r"the training's rows are missing: .*0.rows|the rows in .* are without a journal"
        ):
            disk_rows(tmp_path).roll_back(3)
    (tmp_path / "0.rows").write_bytes(b"short")
    with pytest.raises(EngramError, match="has 5 bytes, expected"):
        record_file(tmp_path)


@pytest.mark.parametrize("cut", [1, 20, 33, 200])
def test_an_entry_that_was_cut_short_is_not_read(tmp_path: Path, cut: int) -> None:
    journal, records = UndoJournal(tmp_path, 2), np.random.default_rng(0).random((5, 7), np.float32)
    for layer in (1, 4):
        journal.add(layer, np.arange(5) + layer, records + layer)
    journal.sync()
    path = journal_path(tmp_path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    (only,) = entries(tmp_path, 2)
    assert (only[0], only[1].tolist()) == (1, [1, 2, 3, 4, 5])
    assert np.array_equal(only[2], records + 1)
    damaged = bytearray(whole)
    damaged[-3] ^= 1
    path.write_bytes(bytes(damaged))
    assert len([*entries(tmp_path, 2)]) == 1


def test_what_was_never_moved_takes_no_room(tmp_path: Path) -> None:
    file = record_file(tmp_path, rows=10**9)
    assert file.path.stat().st_size == 10**9 * file.width * 4
    assert file.path.stat().st_blocks == 0
    rows = np.array([0, 7, 999_999_999])
    drawn = np.empty((3, WIDTH), np.float32)
    NewRows(3, 0.02).fill(rows, drawn)
    records = file.read(rows)
    assert np.array_equal(records[:, :WIDTH], drawn)
    assert not records[:, WIDTH:].any()
    file.move(records, torch.ones(3, WIDTH), 0.1, 1)
    file.write(rows, records)
    assert np.array_equal(file.read(rows), records)
    assert file.path.stat().st_blocks * 512 <= 3 * 2 * 4096


def trained(run: Run, corpus_path: Path, place: str, *sets: str) -> list[float]:
    settings = chosen_settings(preset="nano", sets=[*SETS, *sets, f"recipe.row_place={place}"], options={"recipe.steps": 10})
    trainer = Trainer.start(run, settings.resolve(run.vocab(), "float32"), Corpus((corpus_path,)))
    return [report.loss for report in trainer.steps()]


@pytest.mark.parametrize("rule", ["adam", "sinkhorn"])
def test_a_training_is_that_in_memory_and_its_tables_are_an_ordinary_store(
    tmp_path: Path, vocab_run: Run, corpus_path: Path, rule: str
) -> None:
    memory, disk = (Run(shutil.copytree(vocab_run.folder, tmp_path / name)) for name in ("memory", "disk"))
    expected, found = (
        trained(run, corpus_path, run.folder.name, f"recipe.row_rule={rule}", "recipe.checkpoint_steps=3")
        for run in (memory, disk)
    )
    assert found == expected
    one, other = content(memory), content(disk)
    names = {name for name in one if name.startswith(("tables.zarr", "model."))}
    assert {name: other[name] for name in names} == {name: one[name] for name in names}
    said = document("eval", "def one(x):\n    return x", "--run", disk.folder)
    assert said == document("eval", "def one(x):\n    return x", "--run", memory.folder)


def test_a_killed_training_is_the_undisturbed_one(tmp_path: Path, vocab_run: Run, corpus_path: Path) -> None:
    assert len(list(killed_and_undisturbed(tmp_path, vocab_run, corpus_path, "on disk", 30, 2))) == 2


def test_a_loss_that_is_reached_ends_it_with_tables(tmp_path: Path, vocab_run: Run, corpus_path: Path) -> None:
    run = Run(shutil.copytree(vocab_run.folder, tmp_path / "run"))
    assert len(trained(run, corpus_path, "disk", "recipe.until_loss=100")) == 5, "at the first of two validations"
    (checkpoint,) = checkpoints(run.train_folder)
    assert checkpoint.is_whole
    assert checkpoint.validation_nats < 100
    assert document("eval", "def one(x):", "--run", run.folder)["tokens"] > 0


def test_a_full_drive_is_told_and_costs_only_steps(tmp_path: Path, vocab_run: Run, corpus_path: Path) -> None:
    whole, full = (Run(shutil.copytree(vocab_run.folder, tmp_path / name)) for name in ("whole", "full"))
    expected = trained(whole, corpus_path, "disk", "recipe.checkpoint_steps=4")
    settings = chosen_settings(
        preset="nano", sets=[*SETS, "recipe.row_place=disk", "recipe.checkpoint_steps=4"], options={"recipe.steps": 10}
    )
    trainer = Trainer.start(full, settings.resolve(full.vocab(), "float32"), Corpus((corpus_path,)))
    steps = trainer.steps()
    found = [next(steps).loss for _ in range(6)]
    with (
        largest_file(random.Random(0).randrange(1000, 5000)),
        pytest.raises(EngramError, match=r"rows cannot be read from .*rows or written into it: File too large"),
    ):
        for _ in steps:
            pass
    del trainer, steps
    resumed = Trainer.resume(full)
    assert resumed.state.step == 5, "the newest checkpoint is that of the validation in the middle"
    assert found[:5] + [report.loss for report in resumed.steps()] == expected
    names = {name for name in content(whole) if name.startswith(("tables.zarr", "model."))}
    assert {name: content(full)[name] for name in names} == {name: content(whole)[name] for name in names}


def test_what_cannot_be_on_disk_is_refused(vocab_run: Run) -> None:
    with pytest.raises(UsageError, match=r"recipe.row_place is disk, but rows are frozen"):
        chosen_settings(preset="nano", sets=["recipe.row_place=disk", "recipe.rows=frozen"]).resolve(
            vocab_run.vocab(), "float32"
        )
    refused(engram("train", "--rows", "tape", "--run", vocab_run.folder), 2, "row_place.*tape")
