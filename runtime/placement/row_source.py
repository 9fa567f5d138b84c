"""RowSource: what a placement takes rows from, a store's table or the files of a published checkpoint."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class RowSource(Protocol):
    @property
    def rows(self) -> int:
        """How many there are."""

    def gather(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(…, head_dim) The vectors of rows of any shape. Raises IndexError for a row that there is not."""

    def read_ahead(self, rows: NDArray[np.integer]) -> int:
        """Asks the drive for rows without waiting for them; gives how many pages."""

    def in_memory(self) -> "RowSource":
        """The same rows in memory of their own."""
