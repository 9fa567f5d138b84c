"""Rows on disk: tables of any size, of which a step has its batch's rows in memory and the system what it likes.

    ask      the batch's records are read, a step ahead
    settle   those that the step before has written are taken over from it; what is to be written for the first time since the
             last checkpoint goes into the undo journal, beside the step
    write    the rows move in memory, and their records are written beside the next step; the system brings them to the drive
             when it likes

What is in memory is the records of three batches, and a byte for each row: whether the journal has it.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hashing.base.atomic import remove, sync
from hashing.base.errors import EngramError
from runtime.train.leaf import Leaf
from runtime.train.record_file import RecordFile, Records
from runtime.train.row_table import RowTable, distinct
from runtime.train.rows import BatchRows, shared
from runtime.train.undo_journal import UndoJournal, entries, journal_path, journaled_steps
from runtime.vectors import LayerRows, Vectors

LayerRecords = Mapping[int, tuple[NDArray[np.int64], Records]]  # layer → rows (N,), and the record of each
ROLLED_ROWS = 1 << 16  # that are put back at once


class DiskRows:
    """The rows of every layer, in files of a folder, with the journal since the newest checkpoint."""

    tables: Mapping[int, RowTable] = {}  # in memory, of which there are none

    def __init__(self, files: Mapping[int, RecordFile], device: torch.device) -> None:
        """`device` is where the model computes."""
        self.files, self.device = files, device
        self._marks = {layer: np.zeros(file.rows, bool) for layer, file in files.items()}  # whether the journal has a row
        self._journal: UndoJournal | None = None  # None until there is a checkpoint
        self._writing: Future[None] | None = None
        self.is_finite = True

    @property
    def folder(self) -> Path:
        return next(iter(self.files.values())).path.parent

    @property
    def table_bytes(self) -> int:
        return sum(4 * file.rows * file.head_dim for file in self.files.values())

    def ask(self, rows: LayerRows, before: BatchRows | None) -> "DiskBatchRows":
        assert before is None or isinstance(before, DiskBatchRows)
        return DiskBatchRows(self, rows, before)

    def fetch(self, rows: LayerRows) -> Vectors:
        """The vectors of rows (B, T, columns), as they are now."""

        def vectors(layer: int) -> Tensor:
            unique, inverse = distinct(torch.from_numpy(rows[layer]))
            self.written()
            file = self.files[layer]
            read = torch.from_numpy(file.read(unique.numpy())[:, : file.head_dim])
            return functional.embedding(inverse, read).flatten(2).to(self.device)

        return vectors

    def write_behind(self, records: LayerRecords) -> None:
        """Begins to write rows (N,) of each layer, and their records, once those before are written."""
        self.written()
        self._writing = _writer().submit(self._write, records)

    def _write(self, records: LayerRecords) -> None:
        for layer, (rows, own) in records.items():
            self.files[layer].write(rows, own)

    def written(self) -> None:
        """Waits until the files have all that was to be written. Raises EngramError where they could not take it."""
        if self._writing:
            with told(self.folder):
                self._writing.result()

    def remember(self, records: LayerRecords) -> None:
        """Puts rows (N,) of each layer, and their records, into the journal where it lacks them, and waits for the drive."""
        assert self._journal, "a training begins with a checkpoint"
        for layer, (rows, own) in records.items():
            lacking = np.flatnonzero(~self._marks[layer][rows])
            old = own[lacking]
            old[self.files[layer].is_new(old)] = 0  # as in the file
            self._journal.add(layer, rows[lacking], old)
            self._marks[layer][rows[lacking]] = True
        self._journal.sync()

    def roll_back(self, step: int) -> None:
        """Puts rows back to what they were at the checkpoint of a step, the newest there is.

        Raises EngramError where the rows do not lead back to it.
        """
        found = journaled_steps(self.folder)
        if missing := [file.path for file in self.files.values() if file.is_fresh]:
            for path in missing:
                path.unlink()  # which was made just now
            raise EngramError(
                f"the training's rows are missing: {missing[0]}", hint="put them back, or train again with --force"
            )
        if not found or min(found) > step:
            of = f"of step {min(found)} and later" if found else "without a journal"
            raise EngramError(
                f"the rows in {self.folder} are {of}, and the newest checkpoint is of step {step}",
                hint="put the checkpoints back that were there, or train again with --force",
            )
        for layer, rows, records in entries(self.folder, step) if step in found else ():  # else nothing was written since
            for first in range(0, len(rows), ROLLED_ROWS):
                piece = slice(first, first + ROLLED_ROWS)
                self.files[layer].write(rows[piece], records[piece])
        self.sync()
        self.begin(step)

    def begin(self, step: int) -> None:
        """After the checkpoint of a step has taken its name: from now on the journal is of what changes after it."""
        remove(journal_path(self.folder, step))
        self._journal = UndoJournal(self.folder, step)
        for other in journaled_steps(self.folder) - {step}:
            remove(journal_path(self.folder, other))
        sync(self.folder)
        for marks in self._marks.values():
            marks[:] = False

    def sync(self) -> None:
        """Waits until the drive has all rows as they are."""
        self.written()
        for file in self.files.values():
            file.sync()

    def link(self, folder: Path) -> None:
        """Gives the files second names in a folder."""
        folder.mkdir()
        for file in self.files.values():
            os.link(file.path, folder / file.path.name)

    def moved_to(self, folder: Path) -> None:
        """Says that the folder of the files has another name now."""
        for file in self.files.values():
            file.path = folder / file.path.name


class DiskBatchRows:
    def __init__(self, rows: DiskRows, asked: LayerRows, before: "DiskBatchRows | None") -> None:
        self._rows, self._before = rows, before
        self.leaves: dict[int, Leaf] = {}
        self.records: dict[int, Records] = {}
        rows.written()
        for layer, numbers in asked.items():
            unique, inverse = distinct(torch.from_numpy(numbers))
            file = rows.files[layer]
            with told(rows.folder):
                records = file.read(unique.numpy())
            self.records[layer] = records
            vectors = torch.from_numpy(records[:, : file.head_dim].copy()).to(rows.device)
            self.leaves[layer] = Leaf(unique, vectors.requires_grad_(), inverse.to(rows.device))
        written = before.leaves if before else {}
        self._shared = {layer: shared(self.leaves[layer].rows, leaf.rows) for layer, leaf in written.items()}
        self._remembered: Future[None] | None = None

    @property
    def moved(self) -> dict[int, Tensor]:
        return {}  # the journal has what has changed

    @torch.no_grad()
    def settle(self) -> None:
        for layer, positions in self._shared.items():
            assert self._before is not None
            leaf, theirs = self.leaves[layer], self._before.leaves[layer]
            places = torch.searchsorted(theirs.rows, leaf.rows[positions])
            self.records[layer][positions] = self._before.records[layer][places]
            vectors = torch.from_numpy(self.records[layer][positions, : leaf.vectors.shape[1]])
            leaf.vectors[positions.to(self._rows.device)] = vectors.to(self._rows.device)
        self._before = None
        records = {layer: (leaf.rows.numpy(), self.records[layer]) for layer, leaf in self.leaves.items()}
        self._remembered = _journal_writer().submit(self._rows.remember, records)

    @torch.no_grad()
    def write(self, learning_rate: float, step: int) -> None:
        assert self._remembered is not None, "rows are settled before they are written"
        with told(self._rows.folder):
            self._remembered.result()
        for layer, leaf in self.leaves.items():
            self._move(layer, leaf, learning_rate, step)
        self._rows.write_behind({layer: (leaf.rows.numpy(), self.records[layer]) for layer, leaf in self.leaves.items()})

    def _move(self, layer: int, leaf: Leaf, learning_rate: float, step: int) -> None:
        file, records = self._rows.files[layer], self.records[layer]
        file.move(records, leaf.gradient.cpu(), learning_rate, step)
        self._rows.is_finite &= bool(np.isfinite(records[:, : file.head_dim]).all())


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Raises EngramError for what the drive does not take or give."""
    try:
        yield
    except OSError as e:
        raise EngramError(
            f"rows cannot be read from {folder} or written into it: {e.strerror or e}",
            hint="once that is mended, train --resume goes on from the newest checkpoint",
        ) from e


@cache
def _journal_writer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="journal")


@cache
def _writer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="behind")
