"""Parts: rows of one plane of a table, in a file or in memory."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError

_local = threading.local()


def scratch(rows: int, width: int) -> NDArray[np.uint8]:
    """(rows, width) This thread's buffer, free again at the next call: fresh memory would cost page faults."""
    size = rows * width
    if getattr(_local, "size", -1) < size:
        _local.buffer, _local.size = np.empty(size, np.uint8), size
    buffer: NDArray[np.uint8] = _local.buffer
    return buffer[:size].reshape(rows, width)


class Part(Protocol):
    """Rows of one plane of a layer's records."""

    @property
    def rows(self) -> int: ...

    @property
    def width(self) -> int: ...  # bytes of a row

    def read(self, first: int, out: NDArray[np.uint8]) -> None:
        """Fills `out` (count, bytes of the plane) with rows from `first` on."""


@dataclass(frozen=True, slots=True)
class FilePart:
    path: Path
    offset: int  # of row 0, bytes
    rows: int
    width: int  # bytes of a row

    def read(self, first: int, out: NDArray[np.uint8]) -> None:
        try:
            file = self.path.open("rb", buffering=0)
        except FileNotFoundError as e:
            raise EngramError(f"no such file: {self.path}") from e
        with file:
            file.seek(self.offset + first * self.width)
            view = out.reshape(-1).data
            while len(view):
                count = file.readinto(view)
                if not count:
                    raise EngramError(f"{self.path} ends before row {first + len(out):,}")
                view = view[count:]


@dataclass(frozen=True, slots=True)
class ArrayPart:
    array: NDArray[np.uint8]  # (rows, bytes of the plane)

    @property
    def rows(self) -> int:
        return len(self.array)

    @property
    def width(self) -> int:
        return int(self.array.shape[1])

    def read(self, first: int, out: NDArray[np.uint8]) -> None:
        out[:] = self.array[first : first + len(out)]
