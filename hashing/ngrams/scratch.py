"""Scratch: a folder for the runs of one count, removed with it, or by the next count if this one was killed."""

import fcntl
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from hashing.base.atomic import remove

PREFIX = "ngram-runs-"


class Scratch:
    """Made when the first file in it is asked for. Whoever lives holds a lock on the folder; one without is left over."""

    def __init__(self, parent: Path) -> None:
        """Removes what killed counts left in `parent`."""
        self._parent = parent
        self._folder: Path | None = None
        self._lock = -1
        for folder in parent.glob(f"{PREFIX}*"):
            if (lock := _try_lock(folder)) is not None:
                remove(folder)
                os.close(lock)

    def path(self, name: str) -> Path:
        """Where to write a file of this name."""
        while self._folder is None:
            folder = Path(tempfile.mkdtemp(dir=self._parent, prefix=PREFIX))
            if (lock := _try_lock(folder)) is not None:
                self._folder, self._lock = folder, lock
        return self._folder / name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._folder is not None:
            remove(self._folder)
            os.close(self._lock)
            self._folder = None


def _try_lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None when another has it, or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not folder.exists():
        os.close(descriptor)
        return None
    return descriptor
