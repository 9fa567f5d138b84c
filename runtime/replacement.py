"""Replacing files of a run together: a command finds all the old ones or all the new ones, even after a kill.

New files are made in `RUN/next.partial/next/`, under the names that they are to have. Once they are all on the drive the folder
is renamed to `RUN/next/`: from that moment on they are the run's. They are then moved to their places one by one, and what a
kill leaves in `next/` is moved by whatever opens the run next.

Two locks keep processes apart. One is held by the run's writer for as long as it works. The other is held for moments only: by
readers together while they open files that belong together, and by the writer alone while it moves them.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hashing.base.atomic import atomic_path, remove, sync
from hashing.base.errors import EngramError

TRAINING = ("config.json", "model.safetensors", "tables.zarr", "train")
OF_VOCAB = ("vocab.parquet", *TRAINING, "tokenizer.json", "corpus.json")
RUN_FILES = (*OF_VOCAB, "control", "demo.json")
# With a new file of these names the old ones of the others go, whether or not new ones take their places.
REPLACED_WITH = {"vocab.parquet": OF_VOCAB, "config.json": TRAINING}


class WriterLock:
    """A run's one writer, until the lock is released or forgotten.

    Raises EngramError when another process, or another writer of this one, is at work.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._descriptor = folder / ".writer", -1
        while not self._is_held():
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                os.close(self._descriptor)
                self._descriptor = -1
                raise EngramError(
                    f"the run {folder} is being written by another process",
                    hint="wait until it has ended, or name another place with --run",
                ) from e

    def _is_held(self) -> bool:
        """Whether the file that is locked is the one that others find; the writer before may just have taken it away."""
        if self._descriptor < 0:
            return False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                return True
        os.close(self._descriptor)
        return False

    def release(self) -> None:
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "WriterLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A folder to make a run's new files in; they take their places when the block ends without an error."""
    with atomic_path(folder / "next") as fresh:
        fresh.mkdir()
        yield fresh
    settle(folder)


def settle(folder: Path) -> None:
    """Moves new files to their places, if there are any."""
    fresh = folder / "next"
    if not fresh.exists():
        return
    with locked(folder, fcntl.LOCK_EX):
        if fresh.exists():  # nobody else has moved them while this process waited
            _move(fresh, folder)


def _move(fresh: Path, folder: Path) -> None:
    """A file that others go with is moved as soon as they are gone, and before any other: a second call removes nothing new."""
    for leader, others in REPLACED_WITH.items():
        if (fresh / leader).exists():
            for name in others:
                if not (fresh / name).exists():
                    remove(folder / name)
            (fresh / leader).replace(folder / leader)
    for name in RUN_FILES:
        if (fresh / name).exists():
            remove(folder / name)
            (fresh / name).replace(folder / name)
    sync(folder)
    fresh.rmdir()


@contextmanager
def locked(folder: Path, kind: int) -> Iterator[None]:
    """Within the block the run's files stay as they are (LOCK_SH), or may be moved by this process alone (LOCK_EX)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
