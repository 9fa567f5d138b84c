"""The addressing rule compiled: rows for whole batches, and for sequences that arrive in pieces.

Two reductions make one short kernel serve every boundary rule. A sequence is preceded by a *history* of N-1 canonical ids,
which is all pads at its start; and every rule that blocks look-back (dead positions, boundary ids, given segment starts)
becomes one flag per position, *a segment starts here*. `x mod prime` is a multiply-high by the prime's exact reciprocal and
a shift.
"""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from hashing.errors import EngramError
from hashing.spec import HashSpec

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]

TOKENS_PER_TASK = 1 << 15


@intrinsic
def multiply_high(_typing: Any, _a: Any, _b: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide, narrow = ir.IntType(128), ir.IntType(64)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), narrow)

    return types.uint64(types.uint64, types.uint64), generate


@njit(cache=True, nogil=True)
def _hash_rows(ids, starts, pad, first, last, multipliers, moduli, reciprocals, shifts, offsets, out):  # type: ignore[no-untyped-def]
    """Rows of positions first..last of one sequence; `ids` and `starts` begin with the history, `out` does not."""
    lookback = multipliers.shape[0] - 1
    heads = moduli.shape[0] // lookback
    for t in range(first, last):
        here = t + lookback
        blocked = False
        mix = np.uint64(ids[here]) * multipliers[0]
        column = 0
        for distance in range(1, lookback + 1):
            blocked = blocked or starts[here + 1 - distance]
            slot = pad if blocked else ids[here - distance]
            mix ^= np.uint64(slot) * multipliers[distance]
            for _ in range(heads):
                quotient = multiply_high(mix, reciprocals[column]) >> shifts[column]
                out[t, column] = mix - quotient * moduli[column] + offsets[column]
                column += 1


def _reciprocals(moduli: tuple[int, ...]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """For each modulus p the multiplier and shift that divide any x below 2**63 exactly (Granlund & Montgomery, 1994).

    With s = ceil(log2 p) and M = floor(2**(63+s) / p) + 1, which fits 64 bits, x // p = (x·M >> 64) >> (s-1).
    """
    bits = [(p - 1).bit_length() for p in moduli]
    factors = [(1 << (63 + s)) // p + 1 for p, s in zip(moduli, bits, strict=True)]
    return np.array(factors, np.uint64), np.array([s - 1 for s in bits], np.uint64)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hash")


class Hasher:
    """Rows of token sequences under one spec."""

    def __init__(self, spec: HashSpec) -> None:
        self.spec = spec
        self._constants = {layer: self._layer_constants(layer) for layer in spec.layers}

    def _layer_constants(self, layer: int) -> tuple[NDArray[np.uint64], ...]:
        moduli = self.spec.moduli(layer)
        numbers = (self.spec.multipliers[self.spec.layer_index(layer)], moduli, self.spec.offsets(layer))
        multipliers, divisors, offsets = (np.array(n, np.uint64) for n in numbers)
        return multipliers, divisors, *_reciprocals(moduli), offsets

    def history(self, batch: int) -> Ids:
        """(batch, N-1) What precedes a sequence: pads."""
        return np.full((batch, self.spec.max_order - 1), self.spec.pad_id, np.int64)

    def rows(
        self,
        layer: int,
        ids: NDArray[np.integer],
        history: Ids | None = None,
        starts: Flags | None = None,
        dtype: type[np.signedinteger] = np.int64,
    ) -> NDArray[np.signedinteger]:
        """(B, T, columns) Rows for canonical ids (B, T), which may be below 0 at dead positions.

        `history` (B, N-1) is what `advance` gave for the piece before; `starts` (B, T) marks positions where a segment begins.
        Raises EngramError for an id beyond the canonical vocabulary, or rows that do not fit `dtype`.
        """
        if self.spec.rows(layer) > np.iinfo(dtype).max:
            raise EngramError(f"layer {layer} has {self.spec.rows(layer)} rows, more than {np.dtype(dtype).name} can number")
        extended, flags = self._extend(ids, history, starts)
        batch, length = ids.shape
        out = np.empty((batch, length, self.spec.columns), dtype)

        def work(task: tuple[int, int]) -> None:
            b, first = task
            last = min(first + TOKENS_PER_TASK, length)
            _hash_rows(extended[b], flags[b], self.spec.pad_id, first, last, *self._constants[layer], out[b])

        tasks = [(b, first) for b in range(batch) for first in range(0, length, TOKENS_PER_TASK)]
        run = map if batch * length <= TOKENS_PER_TASK else _threads().map
        deque(run(work, tasks), maxlen=0)
        return out

    def advance(self, ids: NDArray[np.integer], history: Ids | None = None, starts: Flags | None = None) -> Ids:
        """(B, N-1) The history that the piece after `ids` (B, T) needs."""
        extended, flags = self._extend(ids, history, starts)
        following = np.full((len(ids), self.spec.max_order - 1), self.spec.pad_id, np.int64)
        blocked = np.zeros(len(ids), bool)
        for distance in range(1, self.spec.max_order):
            blocked |= flags[:, -distance]
            following[:, -distance] = np.where(blocked, self.spec.pad_id, extended[:, -distance])
        return following

    def _extend(self, ids: NDArray[np.integer], history: Ids | None, starts: Flags | None) -> tuple[Ids, Flags]:
        """Ids (B, N-1+T) with the history in front and pads at dead positions, and flags (B, N-1+T+1) of where segments start.

        The last flag is that of the position after the piece.
        """
        ids = np.asarray(ids, np.int64)
        if ids.size and int(ids.max()) >= self.spec.canonical_size:
            raise EngramError(f"canonical id {int(ids.max())} is outside the vocabulary of {self.spec.canonical_size}")
        before = self.history(len(ids)) if history is None else history
        lookback = before.shape[1]
        flags = np.zeros((len(ids), lookback + ids.shape[1] + 1), bool)
        if starts is not None:
            flags[:, lookback:-1] = starts
        dead = ids < 0
        if dead.any():
            ids = np.where(dead, self.spec.pad_id, ids)
            flags[:, lookback:-1] |= dead
            flags[:, lookback + 1 :] |= dead
        if self.spec.boundary_id is not None:
            flags[:, lookback + 1 :] |= ids == self.spec.boundary_id
        return np.concatenate([before, ids], axis=1), flags
