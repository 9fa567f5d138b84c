"""PartedTable: a layer's rows in several mapped files, read where they lie.

A published checkpoint cuts a table into tensors of several safetensors files, none of them at the boundary of a page. Each is
mapped as a table of its own, and rows are gathered from the one that they fall into.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from table.encodings.encoding import Encoding, Records
from table.store.gather import FLOAT32, Table
from table.store.parts import FilePart
from table.store.table_files import TableFiles


@dataclass(frozen=True, slots=True)
class PartedTable:
    parts: Sequence[Table]  # one after another
    lies_in: TableFiles | None = None  # None: only in memory
    rows: int = field(init=False)
    head_dim: int = field(init=False)
    row_bytes: int = field(init=False)
    scale: float = field(init=False)
    _ends: NDArray[np.int64] = field(init=False, repr=False)  # of the parts, in rows

    def __post_init__(self) -> None:
        ends = np.cumsum([part.rows for part in self.parts])
        first = self.parts[0]
        known = {
            "rows": int(ends[-1]),
            "head_dim": first.head_dim,
            "row_bytes": first.row_bytes,
            "scale": first.scale,
            "_ends": ends,
        }
        for name, value in known.items():
            object.__setattr__(self, name, value)

    @classmethod
    def mapped(cls, parts: Sequence[FilePart], encoding: Encoding, head_dim: int, scale: float) -> "PartedTable":
        """Raises EngramError for a file that is gone, or ends before its rows do."""
        tables = [Table(_mapped(part), encoding, head_dim, scale) for part in parts]
        return cls(tables, TableFiles(parts, np.cumsum([0, *(part.rows for part in parts)])))

    @property
    def files(self) -> TableFiles:
        """Where the records lie. Raises EngramError where that is only in memory."""
        if self.lies_in is None:
            raise EngramError("the table is in memory, and in no file")
        return self.lies_in

    def decoded(self, records: Records) -> NDArray[np.float32]:
        """(N, head_dim) The vectors of records (N, row_bytes)."""
        return self.parts[0].decoded(records)

    def gather(self, rows: NDArray[np.integer], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(…, head_dim) The vectors of rows of any shape, as Table gives them; raises IndexError as it does."""
        found = np.empty((*rows.shape, self.head_dim), FLOAT32) if out is None else out
        flat = found.reshape(-1, self.head_dim)
        for part, places, own in self._shared_out(rows):
            flat[places] = part.gather(own)
        return found

    def stretch(self, first: int, last: int) -> Records:
        """The records of neighbouring rows, as Table gives them; copied where they lie in more than one part."""
        begins = (self._ends - [part.rows for part in self.parts]).tolist()
        found = [
            part.records[max(0, first - begin) : last - begin]
            for part, begin in zip(self.parts, begins, strict=True)
            if begin < last and first < begin + part.rows
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def advise(self, advice: int) -> None:
        """Tells the kernel how the files will be read, as Table does."""
        for part in self.parts:
            part.advise(advice)

    def in_memory(self) -> "PartedTable":
        """The same rows in memory of their own."""
        return PartedTable([part.in_memory() for part in self.parts])

    def _shared_out(self, rows: NDArray[np.integer]) -> Iterator[tuple[Table, NDArray[np.intp], NDArray[np.integer]]]:
        """The parts that rows fall into, with the places of those rows and their numbers within the part."""
        flat = rows.ravel()
        if flat.size and not (flat.min() >= 0 and flat.max() < self.rows):
            raise IndexError(f"rows {flat.min()} to {flat.max()} are not all inside the table's {self.rows}")
        owners = np.searchsorted(self._ends, flat, side="right")
        for owner in np.unique(owners).tolist():
            places = np.flatnonzero(owners == owner)
            part = self.parts[owner]
            yield part, places, flat[places] - (self._ends[owner] - part.rows)


LaidOutTable = Table | PartedTable
"""A table that lies in files, one or more."""


def _mapped(part: FilePart) -> NDArray[np.uint8]:
    try:
        whole = np.memmap(part.path, np.uint8, "r")
    except FileNotFoundError as e:
        raise EngramError(f"no such file: {part.path}") from e
    end = part.offset + part.rows * part.width
    if len(whole) < end:
        raise EngramError(f"{part.path} has {len(whole):,} bytes, expected {end:,}")
    return np.asarray(whole[part.offset : end]).reshape(part.rows, part.width)
