"""The unique rows of a batch, and the sums of their gradients, compiled for a CPU.

Row numbers are sorted eight bits at a time, lowest first, each with its position; then one pass numbers those that differ. At
the sizes of a training step that takes a third of `torch.unique`'s time (docs/log.md), and one thread, so that it can be done
beside a step that computes on the others. Gradients are added in the order of positions, so that sums are the same each time.
"""

import numpy as np
from numba import njit

DIGIT_BITS = 8  # whose 256 places to write to stay in the processor's first cache


@njit(cache=True, nogil=True)
def unique_rows(rows, bits):  # type: ignore[no-untyped-def]
    """The distinct numbers (U,) int64 of `rows` (N,) int64, ascending, and the index (N,) int64 of each row's among them.

    Rows are at least 0 and below 2^bits.
    """
    count, mask = len(rows), (1 << DIGIT_BITS) - 1
    keys, sorted_keys = rows.copy(), np.empty(count, np.int64)
    positions, sorted_positions = np.arange(count), np.empty(count, np.int64)
    places = np.empty(1 << DIGIT_BITS, np.int64)
    for shift in range(0, bits, DIGIT_BITS):
        places[:] = 0
        for i in range(count):
            places[(keys[i] >> shift) & mask] += 1
        before = 0
        for digit in range(len(places)):
            before, places[digit] = before + places[digit], before
        for i in range(count):
            digit = (keys[i] >> shift) & mask
            sorted_keys[places[digit]], sorted_positions[places[digit]] = keys[i], positions[i]
            places[digit] += 1
        keys, sorted_keys = sorted_keys, keys
        positions, sorted_positions = sorted_positions, positions
    unique, inverse, found = sorted_keys, np.empty(count, np.int64), 0
    for i in range(count):
        if found == 0 or keys[i] != unique[found - 1]:
            unique[found] = keys[i]
            found += 1
        inverse[positions[i]] = found - 1
    return unique[:found].copy(), inverse


@njit(cache=True, nogil=True)
def add_gradients(gradients, inverse, sums):  # type: ignore[no-untyped-def]
    """Adds the gradients (N, D) of a batch's vectors to the sums (U, D) of the unique rows that `inverse` (N,) says."""
    for i in range(len(inverse)):
        row = inverse[i]
        for j in range(sums.shape[1]):
            sums[row, j] += gradients[i, j]
