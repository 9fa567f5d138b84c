"""The product of a few rows with a matrix, compiled: each number is one sum, whatever is computed beside it.

Vector instructions work on neighbouring outputs. The matrix lies in panels of PANEL outputs side by side, with zeros after the
last output up to a multiple of WIDTH.
"""

import numpy as np
from llvmlite.binding import get_host_cpu_features
from numba import carray, njit

from runtime.model.step_kernel import floats
from runtime.model.tile_kernel import NUMBER_BYTES, tile

ROWS = 4  # that are computed together
# Outputs whose weights stand together: as many sums of ROWS rows as registers hold beside what is multiplied.
PANEL = 64 if get_host_cpu_features().get("avx512f") else 16
WIDTH = 64  # outputs of a row alone that are computed together, so that no sum waits for the one before
TOGETHER = WIDTH // PANEL  # panels

_one_row, _some_rows = tile(1, PANEL, TOGETHER), tile(ROWS, PANEL)


@njit(cache=True, nogil=True, error_model="numpy")
def product(given, panels, found, shape, first, last):  # type: ignore[no-untyped-def]
    """Fills outputs `first`·WIDTH to `last`·WIDTH of the outputs (rows, outputs) at `found` from the inputs (rows, inputs) at
    `given` and the weights (panels, inputs, PANEL) at `panels`.

    `shape` is rows, inputs, outputs. Rows are taken by a panel together, while its weights are at hand, and share the asking
    for those of the next; rows that are left over are taken one by one.
    """
    rows, inputs, outputs = shape
    out = carray(floats(found), (rows, outputs))
    spare = np.empty((ROWS, WIDTH), np.float32)  # where a tile reaches beyond the last output
    panel_bytes, row_bytes = NUMBER_BYTES * inputs * PANEL, NUMBER_BYTES * inputs
    groups, slowness = rows // ROWS, 0
    while 2 << slowness <= groups:
        slowness += 1
    for part in range(first, last):
        for panel in range(part * TOGETHER, (part + 1) * TOGETHER):
            weights, begin = panels + panel * panel_bytes, panel * PANEL
            for group in range(groups):
                row = group * ROWS
                ahead = weights + NUMBER_BYTES * PANEL * (inputs + group * (inputs >> slowness))
                if begin + PANEL <= outputs:
                    place = found + NUMBER_BYTES * (row * outputs + begin)
                    _some_rows(given + row * row_bytes, weights, inputs, place, outputs, ahead, slowness)
                else:
                    _some_rows(given + row * row_bytes, weights, inputs, spare.ctypes.data, WIDTH, ahead, slowness)
                    for r in range(ROWS):
                        for i in range(max(0, outputs - begin)):
                            out[row + r, begin + i] = spare[r, i]
        weights, begin = panels + part * TOGETHER * panel_bytes, part * WIDTH
        for row in range(groups * ROWS, rows):
            if begin + WIDTH <= outputs:
                place = found + NUMBER_BYTES * (row * outputs + begin)
                _one_row(given + row * row_bytes, weights, inputs, place, outputs, 0, 0)
            else:
                _one_row(given + row * row_bytes, weights, inputs, spare.ctypes.data, WIDTH, 0, 0)
                for i in range(outputs - begin):
                    out[row, begin + i] = spare[0, i]
