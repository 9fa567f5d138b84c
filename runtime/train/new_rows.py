"""New rows: numbers that follow from a seed, the row and the column alone.

So a process that holds a range of a table draws what one that holds it all would, and a row on disk that was never moved needs
no bytes there. A number is the sum of four uniform ones, 16 bits each of splitmix64's value for its place, less the mean: as
near to normal as weights need (none is beyond 3.5 deviations), and the same on every machine, since only integers are added.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hashing.base.cores import CORES
from runtime.windows import hashes

PIECE_ROWS = 1 << 16
DEVIATION = (4 * (65536**2 - 1) / 12) ** 0.5


@njit(cache=True, nogil=True)
def draw_rows(rows, key, scale, out):  # type: ignore[no-untyped-def]
    """Fills `out` (N, D) float32 with the new rows of the numbers `rows` (N,), whose sums are multiplied with `scale`."""
    width = np.uint64(out.shape[1])
    for i in range(len(rows)):
        begin = np.uint64(rows[i]) * width
        for j in range(out.shape[1]):
            z = key + (begin + np.uint64(j) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            low = (z & np.uint64(0x0000FFFF0000FFFF)) + ((z >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF))
            total = np.int64((low & np.uint64(0xFFFFFFFF)) + (low >> np.uint64(32)))
            out[i, j] = np.float32(total - np.int64(131070)) * scale


class NewRows:
    """The rows of a table as they are drawn, with a deviation `std`."""

    def __init__(self, seed: int, std: float) -> None:
        self._key, self._scale = hashes(np.array([seed]))[0], np.float32(std / DEVIATION)

    def fill(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        """Sets `out` (N, D) to the new rows of those numbers."""
        draw_rows(rows, self._key, self._scale, out)

    def fill_range(self, first: int, out: NDArray[np.float32]) -> None:
        """Sets `out` (N, D) to the new rows from `first` on."""

        def fill_piece(begin: int) -> None:
            piece = out[begin : begin + PIECE_ROWS]
            self.fill(np.arange(first + begin, first + begin + len(piece)), piece)

        with ThreadPoolExecutor(CORES, thread_name_prefix="draw") as threads:
            list(threads.map(fill_piece, range(0, len(out), PIECE_ROWS)))
