"""Reading rows through a cache of rows, compiled.

The cache is set-associative: a row has one set of WAYS places, in one of which it may be, and a new row takes the place of the
one of its set that was used longest ago. Keeping rows by how often they were used misses more (`docs/log.md`).

Files are read with `pread` and not mapped: pages of a mapping that were touched stay in the process, many times the size of
the rows, and a file that is cut short ends the process. A read that would wait for the drive is put off at first (RWF_NOWAIT),
so that the drive can be told of all such rows before any of them is waited for. After each read the file is looked at
(`statx`): what was read from one that has changed is not used.

Elsewhere than on Linux rows are waited for one by one, and whoever reads looks at the files.
"""

import sys

import numpy as np
from numba import njit, types

from hashing.base.prefetch import LINE_BYTES, prefetch

WAYS = 8
RWF_NOWAIT = 8
POSIX_FADV_WILLNEED = 3
AT_EMPTY_PATH, AT_STATX_DONT_SYNC, STATX_MTIME, STATX_SIZE = 0x1000, 0x4000, 0x40, 0x200
STAT_SIZE, STAT_MTIME_SEC, STAT_MTIME_NSEC = 5, 14, 15  # words of `struct statx`, of which the last has 32 bits
SPREAD = 0x9E3779B97F4A7C15  # Knuth's multiplicative hash, of 64 bits
ON_LINUX = sys.platform == "linux"

FIRST, DESCRIPTOR, OFFSET, SIZE, MTIME_SEC, MTIME_NSEC = range(6)  # lines of `files`
HIT, REPEATED, READ, WAITED = range(4)  # what is counted: rows; REPEATED are hits on rows of the same call
OUTSIDE, FAILED, CHANGED = -1, -2, -3  # results that are no number of rows

_pread = types.ExternalFunction("pread", types.int64(types.int32, types.int64, types.int64, types.int64))
_preadv2 = types.ExternalFunction("preadv2", types.int64(types.int32, types.int64, types.int32, types.int64, types.int32))
_fadvise = types.ExternalFunction("posix_fadvise", types.int32(types.int32, types.int64, types.int64, types.int32))
_statx = types.ExternalFunction("statx", types.int32(types.int32, types.int64, types.int32, types.uint32, types.int64))


@njit(forceinline=True)
def _read_waiting(descriptor, offset, vector):  # type: ignore[no-untyped-def]
    return _pread(descriptor, vector[0], vector[1], offset)


@njit(forceinline=True)
def _read_at_once(descriptor, offset, vector):  # type: ignore[no-untyped-def]
    return _preadv2(descriptor, vector.ctypes.data, 1, offset, RWF_NOWAIT)


@njit(forceinline=True)
def _will_need(descriptor, offset, width):  # type: ignore[no-untyped-def]
    _fadvise(descriptor, offset, width, POSIX_FADV_WILLNEED)


@njit(forceinline=True)
def _is_as_it_was(file, found):  # type: ignore[no-untyped-def]
    """Whether a file (a column of `files`) has the size and the time of change that it had; `found` is room for what it has."""
    found[0] = 0
    here, flags, wanted = found.ctypes.data, AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MTIME | STATX_SIZE
    if _statx(np.int32(file[DESCRIPTOR]), here, flags, np.uint32(wanted), here) != 0:  # the path is what is there: empty
        return False
    same_time = found[STAT_MTIME_SEC] == file[MTIME_SEC] and found[STAT_MTIME_NSEC] & 0xFFFFFFFF == file[MTIME_NSEC]
    return same_time and found[STAT_SIZE] == file[SIZE]


@njit(forceinline=True)
def _no_advice(descriptor, offset, width):  # type: ignore[no-untyped-def]
    pass


@njit(forceinline=True)
def _unknown(file, found):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return True


if ON_LINUX:
    _read_or_put_off, _ask, _is_sound = _read_at_once, _will_need, _is_as_it_was
else:
    _read_or_put_off, _ask, _is_sound = _read_waiting, _no_advice, _unknown


@njit(forceinline=True)
def _set_of(row, sets):  # type: ignore[no-untyped-def]
    return np.int64(((np.uint64(row) * np.uint64(SPREAD)) >> np.uint64(32)) % np.uint64(sets))


@njit(forceinline=True)
def _place(slots, row):  # type: ignore[no-untyped-def]
    """Where a row is held, as a row of `records`; -1 where it is not."""
    own = _set_of(row, slots.shape[0])
    for way in range(WAYS):
        if slots[own, 0, way] == row:
            return own * WAYS + way
    return -1


@njit(forceinline=True)
def _look_ahead(rows, total, slots, records, places):  # type: ignore[no-untyped-def]
    """Sets `places` (N,) to where rows are held, and asks for those lines of memory; OUTSIDE for a row beyond `total`, whose
    number `places[0]` is then.
    """
    sets, width = slots.shape[0], records.shape[1]
    for i in range(len(rows)):
        if rows[i] < 0 or rows[i] >= total:
            places[0] = i
            return OUTSIDE
        address = slots[_set_of(rows[i], sets)].ctypes.data
        prefetch(address)
        prefetch(address + LINE_BYTES)
    for i in range(len(rows)):
        places[i] = _place(slots, rows[i])
        if places[i] >= 0:
            address = records[places[i]].ctypes.data
            for byte in range(0, width, LINE_BYTES):
                prefetch(address + byte)
            prefetch(address + width - 1)
    return 0


@njit(forceinline=True)
def _oldest(used):  # type: ignore[no-untyped-def]
    """The way of a set that was used longest ago."""
    oldest = 0
    for way in range(1, WAYS):
        if used[way] < used[oldest]:
            oldest = way
    return oldest


@njit(cache=True, nogil=True, error_model="numpy")
def read(rows, places, waits, call, files, slots, records, out, pending, counts):  # type: ignore[no-untyped-def]
    """Fills the records `out` (N, width) at the given `places`, or with none given at all, for `rows` (N,) of a table.

    `files` (6, files + 1) has a column for each file: the first row in it, its descriptor (-1: rows of zeros), where that row
    is, and the file's size and time of change; the last column's first row is the number of rows. `slots` (sets, 2, WAYS) are
    the rows that are held, and the last call that used each; `records` (sets·WAYS, width) are theirs. Where it `waits`, every
    place is filled; else those that would wait are listed in `pending` (N,) after the drive was asked for them. Gives how many
    those are, OUTSIDE for a row that the table lacks (nothing is read then), FAILED for a file that ends before a row does or
    cannot be read, or CHANGED; where there is something wrong, `pending[0]` is the place or the file.
    """
    width, sets, put_off = out.shape[1], slots.shape[0], 0
    total, base = files[FIRST, -1], out.ctypes.data
    size, many = len(places) if len(places) > 0 else len(rows), len(places) > 0
    vector, stat = np.empty(2, np.int64), np.empty(32, np.int64)
    if not many and _look_ahead(rows, total, slots, records, pending) == OUTSIDE:
        return OUTSIDE
    for i in range(size):
        place = places[i] if many else i
        row = rows[place]
        own = _set_of(row, sets)
        held, used = slots[own, 0], slots[own, 1]
        found = -1 if many else pending[i]
        if found < 0 or held[found % WAYS] != row:  # what was read since may have taken its place, or be it
            found = _place(slots, row)
        if found >= 0:
            kept, way = records[found], found % WAYS
            for k in range(width):
                out[place, k] = kept[k]
            counts[REPEATED if used[way] == call else HIT] += 1
            used[way] = call
            continue
        number = np.searchsorted(files[FIRST], row, side="right") - 1
        file = files[:, number]
        if file[DESCRIPTOR] < 0:
            out[place] = 0
            counts[HIT] += 1
            continue
        descriptor, offset = np.int32(file[DESCRIPTOR]), file[OFFSET] + (row - file[FIRST]) * width
        vector[0], vector[1] = base + place * width, width
        if waits:
            got = _read_waiting(descriptor, offset, vector)
        else:
            got = _read_or_put_off(descriptor, offset, vector)
            if got != width:
                _ask(descriptor, offset, width)
                pending[put_off] = place
                put_off += 1
                continue
        is_sound = _is_sound(file, stat)
        if got != width or not is_sound:
            pending[0] = number
            return FAILED if is_sound else CHANGED
        counts[WAITED if waits else READ] += 1
        way = _oldest(used)
        held[way], used[way] = row, call
        kept = records[own * WAYS + way]
        for k in range(width):
            kept[k] = out[place, k]
    return put_off
