"""The addressing rule compiled: rows for whole batches, and for sequences that arrive in pieces.

Two reductions make one short kernel serve every boundary rule. A sequence is preceded by a *history* of N-1 canonical ids,
which is all pads at its start; and whatever blocks look-back (dead positions, boundary ids, given segment starts) only limits
how far back a position reads. `hashing/kernel.py` has the arithmetic.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hashing.base.cores import CORES
from hashing.base.errors import EngramError
from hashing.kernel import following_history, hash_range, layer_constants, reduction_rounds
from hashing.spec import HashSpec

Ids = NDArray[np.integer]
Flags = NDArray[np.bool_]
Rows = NDArray[np.signedinteger]

TASK_POSITIONS = 1 << 16  # with fewer, handing a task to another thread costs more than it saves
NO_BOUNDARY = -1  # equals no id that is read: ids below 0 are dead
NO_HISTORY = np.empty((0, 0), np.int64)
NO_STARTS = np.empty((0, 0), bool)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, thread_name_prefix="hash")


class Hasher:
    """Rows of token sequences under one spec."""

    def __init__(self, spec: HashSpec) -> None:
        self.spec = spec
        self._pads = (spec.pad_id,) * (spec.max_order - 1)
        self._boundary = NO_BOUNDARY if spec.boundary_id is None else spec.boundary_id
        self._lanes, self._rounds = (0,) * spec.heads, (0,) * reduction_rounds(spec)
        self._constants = np.stack([layer_constants(spec, layer) for layer in spec.layers])
        self._lines = {layer: self._constants[i : i + 1] for i, layer in enumerate(spec.layers)}
        self._columns = spec.columns
        self._bits = {layer: (spec.rows(layer) - 1).bit_length() + 1 for layer in spec.layers}  # the sign's included

    def history(self, batch: int) -> NDArray[np.int64]:
        """(batch, N-1) What precedes a sequence: pads."""
        return np.full((batch, self.spec.max_order - 1), self.spec.pad_id, np.int64)

    def rows(
        self,
        layer: int,
        ids: Ids,
        history: NDArray[np.int64] | None = None,
        starts: Flags | None = None,
        dtype: type[np.signedinteger] = np.int64,
        out: Rows | None = None,
    ) -> Rows:
        """(B, T, columns) Rows for canonical ids (B, T), which may be below 0 at dead positions.

        `history` (B, N-1) is what `advance` gave for the piece before; `starts` (B, T) marks positions where a segment begins.
        `out`, contiguous, is filled instead of new memory, whose first touch costs more than the hashing.
        Raises EngramError for an id beyond the canonical vocabulary, or rows that do not fit `dtype`.
        """
        rows = np.empty((*ids.shape, self._columns), dtype) if out is None else out
        if self._bits[layer] > 8 * rows.itemsize:
            raise EngramError(f"layer {layer} has {self.spec.rows(layer)} rows, more than {rows.dtype} can number")
        assert rows.shape == (*ids.shape, self._columns), "out has one row number per position and column"
        assert rows.flags.c_contiguous, "out is contiguous"
        self._fill(self._lines[layer], ids, history, starts, rows.reshape(1, -1))
        return rows

    def rows_by_layer(
        self, ids: Ids, history: NDArray[np.int64] | None = None, starts: Flags | None = None
    ) -> dict[int, NDArray[np.int64]]:
        """What `rows` gives, for every layer of the spec: with few tokens the call is the cost, and this is one call."""
        rows = np.empty((len(self.spec.layers), *ids.shape, self._columns), np.int64)
        self._fill(self._constants, ids, history, starts, rows.reshape(len(rows), -1))
        return dict(zip(self.spec.layers, rows, strict=True))

    def _fill(
        self,
        constants: NDArray[np.int64],
        ids: Ids,
        history: NDArray[np.int64] | None,
        starts: Flags | None,
        out: Rows,
    ) -> None:
        """Fills `out` (layers, B·T·columns) by the layers' lines of constants; long batches are shared out among threads."""
        sequences, layers = self._sequences(ids, history, starts), (self._lanes, self._rounds, constants, out)
        if ids.size <= TASK_POSITIONS:
            largest = hash_range(*sequences, 0, ids.size, *layers)
        else:

            def work(first: int) -> int:
                return int(hash_range(*sequences, first, min(first + TASK_POSITIONS, ids.size), *layers))

            largest = max(_threads().map(work, range(0, ids.size, TASK_POSITIONS)))
        if largest >= self.spec.canonical_size:
            raise EngramError(f"canonical id {largest} is outside the vocabulary of {self.spec.canonical_size}")

    def ragged_rows(self, layer: int, ids: Ids, offsets: NDArray[np.integer], dtype: type[np.signedinteger] = np.int64) -> Rows:
        """(T, columns) Rows for sequences laid end to end in `ids` (T,); sequence i is ids[offsets[i]:offsets[i + 1]]."""
        starts = np.zeros((1, len(ids) + 1), bool)
        starts[0, offsets] = True
        rows: Rows = self.rows(layer, ids[None], starts=starts[:, :-1], dtype=dtype)[0]
        return rows

    def advance(self, ids: Ids, history: NDArray[np.int64] | None = None, starts: Flags | None = None) -> NDArray[np.int64]:
        """(B, N-1) The history that the piece after `ids` (B, T) needs."""
        following: NDArray[np.int64] = following_history(*self._sequences(ids, history, starts))
        return following

    def _sequences(self, ids: Ids, history: NDArray[np.int64] | None, starts: Flags | None) -> tuple[object, ...]:
        """What the kernels take of a batch."""
        assert history is None or history.shape == (len(ids), len(self._pads)), "history has N-1 ids for each sequence"
        assert starts is None or starts.shape == ids.shape, "starts has a mark for each position"
        before = NO_HISTORY if history is None else history
        marks = NO_STARTS if starts is None else np.ascontiguousarray(starts)
        return np.ascontiguousarray(ids), before, marks, self._pads, self._boundary
