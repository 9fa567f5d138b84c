"""Reading rows through a cache of rows, compiled.

The cache is set-associative: a row has one set of WAYS places, in one of which it may be. What is used again is worth keeping,
so each place counts its uses; a new row takes the place of the least used one of its set, and all others of the set then count
one use less. So rows of long ago make way, and a row that comes once displaces no row that came often (`docs/log.md` has the
policies that were tried).

Files are read with `pread` and not mapped: pages of a mapping that were touched stay in the process, many times the size of
the rows, and a file that is cut short ends the process. A read that would wait for the drive is put off at first (RWF_NOWAIT),
so that the drive can be told of all such rows before any of them is waited for.
"""

import sys

import numpy as np
from numba import njit, types

WAYS = 8
MOST_USES = 255
RWF_NOWAIT = 8
POSIX_FADV_WILLNEED = 3
SPREAD = 0x9E3779B97F4A7C15  # Knuth's multiplicative hash, of 64 bits

HIT, REPEATED, READ, WAITED = range(4)  # what is counted: rows; REPEATED are hits on rows of the same call

OUTSIDE, FAILED = -1, -2  # results that are no number of rows

_pread = types.ExternalFunction("pread", types.int64(types.int32, types.int64, types.int64, types.int64))
_preadv2 = types.ExternalFunction("preadv2", types.int64(types.int32, types.int64, types.int32, types.int64, types.int32))
_fadvise = types.ExternalFunction("posix_fadvise", types.int32(types.int32, types.int64, types.int64, types.int32))


@njit(forceinline=True)
def _read_waiting(descriptor, offset, width, vector):  # type: ignore[no-untyped-def]
    return _pread(descriptor, vector[0], width, offset)


@njit(forceinline=True)
def _read_at_once(descriptor, offset, width, vector):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return _preadv2(descriptor, vector.ctypes.data, 1, offset, RWF_NOWAIT)


@njit(forceinline=True)
def _will_need(descriptor, offset, width):  # type: ignore[no-untyped-def]
    _fadvise(descriptor, offset, width, POSIX_FADV_WILLNEED)


@njit(forceinline=True)
def _no_advice(descriptor, offset, width):  # type: ignore[no-untyped-def]
    pass


if sys.platform == "linux":
    _read_or_put_off, _ask = _read_at_once, _will_need
else:
    _read_or_put_off, _ask = _read_waiting, _no_advice


@njit(forceinline=True)
def _place(held, row):  # type: ignore[no-untyped-def]
    """The set of a row, and its place there; -1 where it is not held."""
    own = (np.uint64(row) * np.uint64(SPREAD)) >> np.uint64(32)
    chosen = np.int64(own % np.uint64(len(held)))
    for way in range(WAYS):
        if held[chosen, way] == row:
            return chosen, way
    return chosen, -1


@njit(forceinline=True)
def _victim(uses):  # type: ignore[no-untyped-def]
    """The least used of a set's ways; the others count one use less."""
    least = 0
    for way in range(1, WAYS):
        if uses[way] < uses[least]:
            least = way
    for way in range(WAYS):
        if uses[way] > 0:
            uses[way] -= 1
    return least


@njit(cache=True, nogil=True, error_model="numpy")
def read(rows, places, count, waits, files, cache, call, out, pending, touched, counts):  # type: ignore[no-untyped-def]
    """Fills the records `out` (N, width) at the given `places` for `rows` (N,) of a table of `count`.

    `files` are the first row of each file and after them `count` (files + 1,), descriptors (-1: rows of zeros) and offsets in
    bytes; `cache` the rows held (sets, WAYS), their uses, the last call that used each, and their records (sets·WAYS, width).
    `touched` (files,) is set where a file was read. Where it `waits`, every place is filled; else those that would wait are
    listed in `pending` (N,) after the drive was asked for them. Gives how many are pending, OUTSIDE for a row that the table
    lacks (nothing is read then), or FAILED for a file that ends before a row does, or cannot be read; its number is in
    `pending[0]`.
    """
    firsts, descriptors, offsets = files
    held, uses, used, records = cache
    width, put_off = out.shape[1], 0
    base = out.ctypes.data
    vector = np.empty(2, np.int64)
    for place in places:
        if rows[place] < 0 or rows[place] >= count:
            pending[0] = place
            return OUTSIDE
    for place in places:
        row = np.int64(rows[place])
        own, way = _place(held, row)
        if way >= 0:
            kept = records[own * WAYS + way]
            for i in range(width):
                out[place, i] = kept[i]
            if uses[own, way] < MOST_USES:
                uses[own, way] += 1
            counts[REPEATED if used[own, way] == call else HIT] += 1
            used[own, way] = call
            continue
        file = np.searchsorted(firsts, row, side="right") - 1
        descriptor = descriptors[file]
        if descriptor < 0:
            out[place] = 0
            counts[HIT] += 1
            continue
        offset = offsets[file] + (row - firsts[file]) * width
        vector[0], vector[1] = base + place * width, width
        if waits:
            size = _read_waiting(descriptor, offset, width, vector)
        else:
            size = _read_or_put_off(descriptor, offset, width, vector)
            if size != width:
                _ask(descriptor, offset, width)
                pending[put_off] = place
                put_off += 1
                continue
        touched[file] = True
        if size != width:
            pending[0] = file
            return FAILED
        counts[WAITED if waits else READ] += 1
        way = _victim(uses[own])
        held[own, way], uses[own, way], used[own, way] = row, 1, call
        kept = records[own * WAYS + way]
        for i in range(width):
            kept[i] = out[place, i]
    return put_off
