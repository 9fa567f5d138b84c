"""The undo journal: what rows on disk were at the last checkpoint, of those that have been written since.

    rows/undo-<step>    an entry for each layer of each step after that checkpoint: layer, count N, width, and CRC-32 of what
                        follows (int64); the rows (N,) int64; their records (N, width) float32; all little-endian

A row's record is in the journal, and on the drive, before the row is first written. So whatever ends a training, rows that were
written go back to what they were, and it goes on from the checkpoint to the bit. The journal of a checkpoint begins when its
folder has its name; one of an earlier step is then of no use. One of a later step says that the rows are no longer those of the
checkpoint, which has lost the ones after it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from hashing.base.atomic import sync
from runtime.train.record_file import Records

NAME = "undo-"


def journal_path(folder: Path, step: int) -> Path:
    return folder / f"{NAME}{step}"


class UndoJournal:
    """A new journal, of what changes after the checkpoint of a step."""

    def __init__(self, folder: Path, step: int) -> None:
        self._descriptor = os.open(journal_path(folder, step), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        sync(folder)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def add(self, layer: int, rows: NDArray[np.int64], records: Records) -> None:
        body = rows.astype("<i8").tobytes() + records.astype("<f4").tobytes()
        head = np.array([layer, len(rows), records.shape[1], crc32(body)], "<i8").tobytes()
        left = memoryview(head + body)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def sync(self) -> None:
        """Waits until the drive has what was added."""
        os.fdatasync(self._descriptor)


def entries(folder: Path, step: int) -> Iterator[tuple[int, NDArray[np.int64], Records]]:
    """The layer, rows and records of every entry that is whole; what follows one that is not was never acted upon."""
    with journal_path(folder, step).open("rb") as file:
        while len(head := file.read(32)) == 32:
            layer, count, width, crc = np.frombuffer(head, "<i8").tolist()
            body = file.read(count * (8 + 4 * width))
            if len(body) < count * (8 + 4 * width) or crc32(body) != crc:
                return
            rows = np.frombuffer(body, "<i8", count)
            yield layer, rows, np.frombuffer(body, "<f4", offset=8 * count).reshape(count, width)


def journaled_steps(folder: Path) -> set[int]:
    """The steps of the checkpoints that there are journals of."""
    return {int(path.name.removeprefix(NAME)) for path in folder.glob(f"{NAME}[0-9]*")}
