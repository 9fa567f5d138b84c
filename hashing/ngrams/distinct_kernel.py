"""The table that finds the distinct n-grams of a partition: entries in order of appearance, and a sparse index of them.

A slot of the index is chosen by the upper bits of `mixed` and holds an entry's number, or 0; whoever finds it taken tries the
next one. So a walk over the index meets the entries nearly sorted, and an insertion sort does the rest.

Whether an n-gram was there before is what no processor can predict, so nothing branches on it: entry 0 is made equal to what is
sought, which ends the search at an empty slot as if it were found, and the entry is written back whole either way.
"""

import numpy as np
from numba import njit

from hashing.base.prefetch import AHEAD_BYTES, prefetch
from hashing.ngrams.partition_kernel import HALF, LOWER_HALF, ONE

FIRST_CAPACITY = 1024  # entries
SLOTS = 2  # of the index for each entry there is room for; as many again as entries catch what overflows its end

MIXED, REST, TALLY, LAST = range(4)  # an entry's fields; the tally is count << 32 | documents
ONCE = ONE << HALF


@njit(cache=True, nogil=True)
def tally(begins, words, rests, documents, found):  # type: ignore[no-untyped-def]
    """Counts the scattered n-grams of neighbouring partitions; what is found is sorted within each partition.

    `begins` (partitions + 1,) says where each partition's occurrences lie in `words`, `rests` and `documents`. `found` is
    (bounds (partitions + 1,), mixed, rest, count, documents): the distinct n-grams of all partitions from 0 on, and where each
    partition's begin.
    """
    bounds, mixes, tails, counts, frequencies = found
    capacity = FIRST_CAPACITY
    entries = np.zeros((capacity + 1, 4), np.uint64)
    index = np.zeros((SLOTS + 1) * capacity, np.uint32)
    bounds[0] = 0
    for partition in range(begins.shape[0] - 1):
        begin, end = begins[partition], begins[partition + 1]
        distinct = 0
        while begin < end:
            if distinct == capacity:
                capacity *= 2
                if capacity >= entries.shape[0]:
                    larger = np.zeros((capacity + 1, 4), np.uint64)
                    larger[: distinct + 1] = entries
                    entries, index = larger, np.zeros((SLOTS + 1) * capacity, np.uint32)
                _enter_all(index, entries, capacity, distinct)
            done, distinct = _fill(index, entries, capacity, distinct, words[begin:end], rests[begin:end], documents[begin:end])
            begin += done
        place = bounds[partition]
        size = place + distinct
        out = mixes[place:size], tails[place:size], counts[place:size], frequencies[place:size]
        _read_out(index, entries, distinct, *out)
        _insertion_sort(distinct, *out)
        bounds[partition + 1] = size
        while capacity > FIRST_CAPACITY and 4 * distinct < capacity:
            capacity //= 2


@njit(cache=True, nogil=True)
def _slot_shift(capacity):  # type: ignore[no-untyped-def]
    bits = 0
    while (1 << bits) < SLOTS * capacity:
        bits += 1
    return np.uint64(64 - bits)


@njit(cache=True, nogil=True)
def _enter_all(index, entries, capacity, distinct):  # type: ignore[no-untyped-def]
    shift = _slot_shift(capacity)
    index[:] = 0
    for number in range(1, distinct + 1):
        slot = entries[number, MIXED] >> shift
        while index[slot] != 0:
            slot += ONE
        index[slot] = number


@njit(cache=True, nogil=True)
def _fill(index, entries, capacity, distinct, words, rests, documents):  # type: ignore[no-untyped-def]
    """Counts occurrences until they end or the table is full; gives how many, and how many distinct ones there are now."""
    wide = rests.shape[0] > 0
    shift = _slot_shift(capacity)
    rest, number, room = np.uint64(0), np.uint64(distinct), np.uint64(capacity)
    for i in range(words.shape[0]):
        prefetch(words.ctypes.data + 8 * i + AHEAD_BYTES)
        prefetch(documents.ctypes.data + 4 * i + AHEAD_BYTES)
        if wide:
            prefetch(rests.ctypes.data + 8 * i + AHEAD_BYTES)
            rest = rests[i]
        mixed = words[i]
        document = np.uint64(documents[i])
        slot = mixed >> shift
        at = np.uint64(index[slot])
        entries[0, MIXED] = mixed
        if wide:
            entries[0, REST] = rest
        while entries[at, MIXED] != mixed or (wide and entries[at, REST] != rest):
            slot += ONE
            at = np.uint64(index[slot])
        number += np.uint64(at == 0)
        if at == 0:
            at = number
        index[slot] = at
        entries[at, MIXED] = mixed
        if wide:
            entries[at, REST] = rest
        entries[at, TALLY] += ONCE + np.uint64(entries[at, LAST] != document)
        entries[at, LAST] = document
        if number == room:
            return i + 1, np.int64(number)
    return words.shape[0], np.int64(number)


@njit(cache=True, nogil=True)
def _read_out(index, entries, distinct, mixes, tails, counts, frequencies):  # type: ignore[no-untyped-def]
    """Copies the entries in the order of their slots, and empties the table."""
    wide = tails.shape[0] > 0
    slot = place = 0
    while place < distinct:
        number = index[slot]
        index[slot] = 0
        index[place] = number
        place += number != 0
        slot += 1
    for place in range(distinct):
        at = np.uint64(index[place])
        index[place] = 0
        entry = entries[at, TALLY]
        mixes[place] = entries[at, MIXED]
        counts[place] = entry >> HALF
        frequencies[place] = entry & LOWER_HALF
        if wide:
            tails[place] = entries[at, REST]
        entries[at, TALLY] = 0
        entries[at, LAST] = 0


@njit(cache=True, nogil=True)
def _insertion_sort(count, mixes, tails, counts, frequencies):  # type: ignore[no-untyped-def]
    wide = tails.shape[0] > 0
    tail = np.uint64(0)
    for i in range(1, count):
        mixed = mixes[i]
        if mixes[i - 1] < mixed:
            continue
        if wide:
            tail = tails[i]
        number, frequency = counts[i], frequencies[i]
        place = i
        while place > 0 and (mixes[place - 1] > mixed or (wide and mixes[place - 1] == mixed and tails[place - 1] > tail)):
            mixes[place] = mixes[place - 1]
            counts[place] = counts[place - 1]
            frequencies[place] = frequencies[place - 1]
            if wide:
                tails[place] = tails[place - 1]
            place -= 1
        mixes[place] = mixed
        counts[place] = number
        frequencies[place] = frequency
        if wide:
            tails[place] = tail
