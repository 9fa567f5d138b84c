"""RowSource: what a placement takes rows from, a store's table or the files of a published checkpoint."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from table.encodings.encoding import Records
from table.store.table_files import TableFiles


def bytes_of(tables: "Mapping[int, RowSource]") -> int:
    """Of the records of all tables."""
    return sum(table.rows * table.row_bytes for table in tables.values())


class RowSource(Protocol):
    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def head_dim(self) -> int:
        """Numbers of a row."""

    @property
    def row_bytes(self) -> int:
        """Of a record."""

    @property
    def files(self) -> TableFiles:
        """Where the records lie. Raises EngramError where that is only in memory."""

    def gather(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(…, head_dim) The vectors of rows of any shape. Raises IndexError for a row that there is not."""

    def decoded(self, records: Records) -> NDArray[np.float32]:
        """(N, head_dim) The vectors of records (N, row_bytes)."""

    def in_memory(self) -> "RowSource":
        """The same rows in memory of their own."""
