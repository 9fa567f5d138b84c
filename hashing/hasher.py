"""The addressing rule compiled: rows for whole batches, and for sequences that arrive in pieces.

Two reductions make one short kernel serve every boundary rule. A sequence is preceded by a *history* of N-1 canonical ids,
which is all pads at its start; and whatever blocks look-back (dead positions, boundary ids, given segment starts) only limits
how far back a position reads. `hashing/kernel.py` has the arithmetic.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.kernel import ONE_ROUND_FROM, SHRINK, following_history, hash_range
from hashing.spec import HashSpec

Ids = NDArray[np.integer]
Flags = NDArray[np.bool_]
Rows = NDArray[np.signedinteger]

LEAST_POSITIONS = 1 << 16  # of a task; with fewer, starting it costs more than it saves
NO_BOUNDARY = -1  # equals no id that is read: ids below 0 are dead


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hash")


class Hasher:
    """Rows of token sequences under one spec."""

    def __init__(self, spec: HashSpec) -> None:
        self.spec = spec
        self._pads = (spec.pad_id,) * (spec.max_order - 1)
        self._boundary = NO_BOUNDARY if spec.boundary_id is None else spec.boundary_id
        self._constants = {layer: self._layer_constants(layer) for layer in spec.layers}

    def _layer_constants(self, layer: int) -> tuple[object, ...]:
        multipliers = self.spec.multipliers[self.spec.layer_index(layer)]
        moduli = np.array(self.spec.moduli(layer), np.int64)
        offsets = np.array(self.spec.offsets(layer), np.int64)
        lanes = (0,) * self.spec.heads
        rounds = (0,) if int(moduli.min()) >= ONE_ROUND_FROM else (0, 0)
        return multipliers, lanes, rounds, moduli, SHRINK / moduli, offsets

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
        rows = np.empty((*ids.shape, self.spec.columns), dtype) if out is None else out
        if self.spec.rows(layer) - 1 > np.iinfo(rows.dtype).max:
            raise EngramError(f"layer {layer} has {self.spec.rows(layer)} rows, more than {rows.dtype} can number")
        assert rows.shape == (*ids.shape, self.spec.columns), "out has one row number per position and column"
        assert rows.flags.c_contiguous, "out is contiguous"
        sequences = self._sequences(ids, history, starts)
        constants, flat = self._constants[layer], rows.reshape(-1)

        share = max(LEAST_POSITIONS, -(-ids.size // (os.cpu_count() or 1)))

        def work(first: int) -> int:
            return int(hash_range(*sequences, first, min(first + share, ids.size), *constants, flat))

        run = map if ids.size <= share else _threads().map
        self._check_largest(max(run(work, range(0, ids.size, share)), default=-1))
        return rows

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
        before = self.history(len(ids)) if history is None else history
        marks = np.zeros((0, 0), bool) if starts is None else np.ascontiguousarray(starts)
        return np.ascontiguousarray(ids), before, marks, self._pads, self._boundary

    def _check_largest(self, largest: int) -> None:
        if largest >= self.spec.canonical_size:
            raise EngramError(f"canonical id {largest} is outside the vocabulary of {self.spec.canonical_size}")
