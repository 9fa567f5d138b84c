"""Table: one layer's records, and the vectors of row numbers straight from them.

Warm rows are decoded by a few threads, each asking for the records ahead of the one it decodes; the GIL is released, so that a
background thread can work. Rows that may still be on the drive are asked for first, all at once: a page fault at a time leaves
the drive idle between requests.
"""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from table.encoding import ENCODINGS, Encoding, Records

BYTES_PER_TASK = 1 << 20  # of vectors; below it one thread is faster than handing out work


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gather")


@dataclass(frozen=True, slots=True)
class Table:
    """A layer's table: records of any encoding, read as float32 vectors."""

    records: Records  # (rows, row_bytes), usually mapped
    encoding: Encoding
    head_dim: int
    scale: float = 1.0

    @property
    def rows(self) -> int:
        return len(self.records)

    def gather(self, rows: NDArray[np.integer], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(…, head_dim) The vectors of rows of any shape, into `out` if given (C-contiguous float32 of that shape).

        Raises IndexError for a row that the table does not have.
        """
        shape = (*rows.shape, self.head_dim)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.dtype} {out.shape}, expected contiguous float32 {shape}")
        flat, vectors = np.ascontiguousarray(rows).reshape(-1), out.reshape(-1, self.head_dim)
        words, kernel, scale = self.encoding.words(self.records), self.encoding.kernel(), np.float32(self.scale)
        per_task = max(1, BYTES_PER_TASK // (4 * self.head_dim))

        def work(first: int) -> None:
            last = first + per_task
            bad = kernel(words, self.records.shape[1], flat[first:last], scale, vectors[first:last])
            if bad >= 0:
                raise IndexError(f"row {flat[first + bad]} is outside the table's {self.rows}")

        run = map if len(flat) <= per_task else _threads().map
        deque(run(work, range(0, len(flat), per_task)), maxlen=0)
        return out


def gather(table: NDArray[np.float32], rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """(…, head_dim) The same for a float32 array (rows, head_dim) that is in memory."""
    return Table(table.view(np.uint8), ENCODINGS["float32"], table.shape[1]).gather(rows)
