"""TableFiles: the files that a table's records lie in, for reading some of them where a mapping would not do.

A file is known by its device, inode, size and time of change. Whoever opens the files later gets those that were mapped, or an
error; and whoever has read from one can ask whether it is still what it was.
"""

import os
import resource
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from table.store.parts import FilePart

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class TableFiles:
    parts: Sequence[FilePart | None]  # one after another, all of one width; None: rows of zeros
    firsts: NDArray[np.int64]  # (parts + 1,) the first row of each, and how many rows there are
    stamps: Sequence[Stamp | None] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stamps", [part and _stamp(os.stat(part.path)) for part in self.parts])

    @property
    def rows(self) -> int:
        return int(self.firsts[-1])

    def check_mapped(self) -> None:
        """Raises EngramError when a file was written to or cut: touching its mapping could end the process.

        A file that was replaced or removed stays what it was where it is mapped.
        """
        for part, stamp in zip(self.parts, self.stamps, strict=True):
            if part is None or stamp is None or not part.path.exists():
                continue
            found = _stamp(part.path.stat())
            if found[:2] == stamp[:2] and found != stamp:
                raise _changed(part)

    def open(self) -> "OpenFiles":
        """Raises EngramError for a file that is gone, or not the one that it was."""
        _allow_files(len(self.parts))
        opened = OpenFiles(self, np.full(len(self.parts), -1, np.int64))
        for number, part in enumerate(self.parts):
            if part is not None:
                try:
                    opened.descriptors[number] = os.open(part.path, os.O_RDONLY)
                except OSError as e:
                    raise EngramError(f"cannot open {part.path}: {e.strerror}") from e
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(int(opened.descriptors[number]), 0, 0, os.POSIX_FADV_RANDOM)
        opened.check()
        return opened


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class OpenFiles:
    files: TableFiles
    descriptors: NDArray[np.int64]  # (parts,) -1 for rows of zeros

    def __post_init__(self) -> None:
        weakref.finalize(self, _close, self.descriptors)

    def record(self, row: int) -> bytes | None:
        """The record of a row, by itself; None for zeros that lie in no file.

        Raises EngramError for a file that has changed or ends before the row does.
        """
        number = int(np.searchsorted(self.files.firsts, row, side="right")) - 1
        if (part := self.files.parts[number]) is None:
            return None
        offset = part.offset + (row - int(self.files.firsts[number])) * part.width
        found = os.pread(int(self.descriptors[number]), part.width, offset)
        self._check(number)
        if len(found) != part.width:
            self.fail(number, f"ends before row {row}")
        return found

    def table(self) -> NDArray[np.int64]:
        """(6, parts + 1) What compiled code takes of the files (`row_cache_kernel.read`)."""
        found = np.zeros((6, len(self.files.parts) + 1), np.int64)
        found[0], found[1, :-1] = self.files.firsts, self.descriptors
        for number, (part, stamp) in enumerate(zip(self.files.parts, self.files.stamps, strict=True)):
            if part is not None and stamp is not None:
                found[2:, number] = part.offset, stamp[2], *divmod(stamp[3], 10**9)
        return found

    def check(self) -> None:
        """Raises EngramError when a file has changed since its table was opened; one that was only removed is still there."""
        for number, part in enumerate(self.files.parts):
            if part is not None:
                self._check(number)

    def _check(self, number: int) -> None:
        if _stamp(os.fstat(int(self.descriptors[number]))) != self.files.stamps[number]:
            raise _changed(self.files.parts[number])

    def fail(self, number: int, what: str) -> NoReturn:
        """Raises EngramError for a file."""
        raise _unusable(self.files.parts[number], what)


def _changed(part: FilePart | None) -> EngramError:
    return _unusable(part, "has changed since it was opened")


def _unusable(part: FilePart | None, what: str) -> EngramError:
    assert part is not None
    return EngramError(f"{part.path} {what}", hint="put the file back as it was, and begin again")


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _close(descriptors: NDArray[np.int64]) -> None:
    for descriptor in descriptors[descriptors >= 0].tolist():
        os.close(descriptor)


def _allow_files(more: int) -> None:
    """Lets the process open so many files more than it could, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft + more if hard == resource.RLIM_INFINITY else min(soft + more, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
