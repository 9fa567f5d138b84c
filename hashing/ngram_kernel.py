"""Counting n-grams exactly: one scatter by the hash of the newest two ids serves every order, then a small table per partition.

Occurrences are scattered into partitions by the hash of their bigram, each as the packed n-gram of the longest order; masked,
it gives every shorter one, and equal n-grams of any order share a partition. A partition's table fits the CPU's cache. Its
slots are chosen by the upper bits of `mixed`, so it is nearly sorted when it is read out. Partitions keep the order of the
text, so a document that repeats an n-gram is recognised by comparing with the last document that had it.

Ids come as uint32, canonical id + 1, with 0 for what blocks look-back: no n-gram ends there, and those that reach back to it
hold 0 there and beyond. Packing puts the newest id in the lowest bits; `in_first` ids go into the first word and the older ones
into the second, `rest`, which is 0 for short n-grams. `mixed` is the first word, folded with the rest, times an odd number, its
upper bits (which for bigrams choose the partition) rotated down: nothing is lost, so `unpack` goes back.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

PARTITIONS = 1024
PARTITION_SHIFT = np.uint64(54)
ROTATION = np.uint64(10)
FOLD = np.uint64(0xC2B2AE3D27D4EB4F)
SPREAD = np.uint64(0x9E3779B97F4A7C15)
UNSPREAD = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
LOWER_HALF, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
ONE = np.uint64(1)
FIRST_CAPACITY = 1024

MIXED, REST, TALLY, LAST = range(4)  # a slot's fields; the tally is count << 32 | documents, 0 in an empty slot


def word_masks(order: int, bits: int, in_first: int) -> tuple[np.uint64, np.uint64]:
    """Which bits of the two words an n-gram of this order fills."""
    first = min(order, in_first)
    return np.uint64((1 << bits * first) - 1), np.uint64((1 << bits * (order - first)) - 1)


def unpack(mixed: NDArray[np.uint64], rest: NDArray[np.uint64], order: int, bits: int, in_first: int) -> NDArray[np.int32]:
    """(count, order) Canonical ids in reading order, -1 for what blocks."""
    word = ((mixed >> ROTATION) | (mixed << PARTITION_SHIFT)) * UNSPREAD ^ (rest * FOLD)
    mask = np.uint64((1 << bits) - 1)
    ids = np.empty((len(mixed), order), np.int32)
    for distance in range(order):
        source, place = (word, distance) if distance < in_first else (rest, distance - in_first)
        ids[:, order - 1 - distance] = ((source >> np.uint64(bits * place)) & mask).astype(np.int64) - 1
    return ids


@njit(cache=True, nogil=True)
def _mix(word, rest):  # type: ignore[no-untyped-def]
    product = (word ^ (rest * FOLD)) * SPREAD
    return (product << ROTATION) | (product >> PARTITION_SHIFT)


@njit(cache=True, nogil=True)
def translate(token_ids, mapping, out):  # type: ignore[no-untyped-def]
    """Fills `out` with canonical id + 1, or 0 for token ids below 0; gives the largest token id, having read none beyond it."""
    largest = np.int64(-1)
    for i in range(token_ids.shape[0]):
        here = np.int64(token_ids[i])
        largest = max(largest, here)
        out[i] = mapping[here] + 1 if 0 <= here < mapping.shape[0] else 0
    return largest


@njit(cache=True, nogil=True)
def histogram(ids, first, last, bits, sizes):  # type: ignore[no-untyped-def]
    """Adds to `sizes` (PARTITIONS,) how many n-grams ending at first..last fall into each."""
    shift = np.uint64(bits)
    before = np.uint64(ids[first - 1]) if first > 0 else np.uint64(0)
    for t in range(first, last):
        here = np.uint64(ids[t])
        if here != 0:
            sizes[np.int64((((before << shift) | here) * SPREAD) >> PARTITION_SHIFT)] += 1
        before = here


@njit(cache=True, nogil=True)
def scatter(ids, starts, first, last, order, bits, in_first, cursors, words, rests, documents):  # type: ignore[no-untyped-def]
    """Writes the n-grams ending at first..last, and the number of the document each is in, to their partitions' `cursors`.

    `starts` are the positions where documents begin; `rests` is empty for n-grams that fit one word.
    """
    wide = rests.shape[0] > 0
    shift = np.uint64(bits)
    first_bits = np.uint64(bits * in_first)
    word_mask = (ONE << first_bits) - ONE if bits * in_first < 64 else ~np.uint64(0)
    rest_mask = (ONE << np.uint64(bits * (order - in_first))) - ONE
    pair_mask = (ONE << np.uint64(2 * bits)) - ONE
    word, rest = np.uint64(0), np.uint64(0)
    document = np.searchsorted(starts, first, "right")
    following = starts[document] if document < starts.shape[0] else last
    for t in range(max(first - order + 1, 0), last):
        here = np.uint64(ids[t])
        if here == 0:
            word, rest = np.uint64(0), np.uint64(0)
        else:
            if wide:
                rest = ((rest << shift) | (word >> (first_bits - shift))) & rest_mask
            word = ((word << shift) | here) & word_mask
        if t < first:
            continue
        if t == following:
            document += 1
            following = starts[document] if document < starts.shape[0] else last
        if here != 0:
            partition = np.int64(((word & pair_mask) * SPREAD) >> PARTITION_SHIFT)
            place = cursors[partition]
            cursors[partition] = place + 1
            words[place] = word
            documents[place] = document
            if wide:
                rests[place] = rest


@njit(cache=True, nogil=True)
def tally(bounds, first, last, masks, words, rests, documents, found):  # type: ignore[no-untyped-def]
    """Distinct n-grams of partitions first..last for the order whose `masks` are given, sorted, each partition where it began.

    bounds (PARTITIONS + 1,) says where. `found` is (sizes per partition, mixed, rest, count, documents).
    """
    sizes, mixes, tails, counts, frequencies = found
    capacity = FIRST_CAPACITY
    table = np.zeros((2 * capacity, 4), np.uint64)
    for partition in range(first, last):
        begin, end = bounds[partition], bounds[partition + 1]
        distinct = -1
        while distinct < 0:
            if table.shape[0] != 2 * capacity:
                table = np.zeros((2 * capacity, 4), np.uint64)
            distinct = _fill(table, capacity, masks, words[begin:end], rests[begin:end], documents[begin:end])
            if distinct < 0:
                capacity *= 2
        _read_out(table, mixes[begin:end], tails[begin:end], counts[begin:end], frequencies[begin:end])
        _insertion_sort(distinct, mixes[begin:end], tails[begin:end], counts[begin:end], frequencies[begin:end])
        sizes[partition] = distinct
        while capacity > FIRST_CAPACITY and distinct * 8 < capacity:
            capacity //= 2


@njit(cache=True, nogil=True)
def _fill(table, capacity, masks, words, rests, documents):  # type: ignore[no-untyped-def]
    """Tallies into the table (2·capacity slots, of which the second half only catches overflow); -1 when it is too small."""
    wide = rests.shape[0] > 0
    word_mask, rest_mask = masks
    bits = 0
    while (1 << bits) < capacity:
        bits += 1
    slot_shift = np.uint64(64 - bits)
    distinct = 0
    rest = np.uint64(0)
    for i in range(words.shape[0]):
        if wide:
            rest = rests[i] & rest_mask
        mixed = _mix(words[i] & word_mask, rest)
        document = np.uint64(documents[i])
        slot = np.int64(mixed >> slot_shift)
        while table[slot, TALLY] != 0 and (table[slot, MIXED] != mixed or table[slot, REST] != rest):
            slot += 1
        entry = table[slot, TALLY]
        if entry == 0:
            distinct += 1
            if 2 * distinct > capacity:
                table[:] = 0
                return -1
            table[slot, MIXED] = mixed
            table[slot, REST] = rest
            table[slot, TALLY] = (ONE << HALF) + ONE
            table[slot, LAST] = document
        else:
            table[slot, TALLY] = entry + (ONE << HALF) + np.uint64(table[slot, LAST] != document)
            table[slot, LAST] = document
    return distinct


@njit(cache=True, nogil=True)
def _read_out(table, mixes, tails, counts, frequencies):  # type: ignore[no-untyped-def]
    """Moves the table's entries, slot by slot, to the front of the arrays, and empties it."""
    wide = tails.shape[0] > 0
    place = 0
    for slot in range(table.shape[0]):
        entry = table[slot, TALLY]
        if entry != 0:
            mixes[place] = table[slot, MIXED]
            counts[place] = entry >> HALF
            frequencies[place] = entry & LOWER_HALF
            if wide:
                tails[place] = table[slot, REST]
            place += 1
            table[slot, TALLY] = 0


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


@njit(cache=True, nogil=True)
def compact(bounds, found):  # type: ignore[no-untyped-def]
    """Moves what `tally` left at the front of each partition together; gives how many there are in all."""
    sizes, mixes, tails, counts, frequencies = found
    wide = tails.shape[0] > 0
    place = 0
    for partition in range(sizes.shape[0]):
        for source in range(bounds[partition], bounds[partition] + sizes[partition]):
            mixes[place], counts[place], frequencies[place] = mixes[source], counts[source], frequencies[source]
            if wide:
                tails[place] = tails[source]
            place += 1
    return place


@njit(cache=True, nogil=True)
def merge(left_bounds, left, right_bounds, right, bounds, out):  # type: ignore[no-untyped-def]
    """Merges two runs, each (mixed, rest, count, documents) sorted within its partitions, adding up what both have."""
    place = 0
    for partition in range(left_bounds.shape[0] - 1):
        bounds[partition] = place
        i, j = left_bounds[partition], right_bounds[partition]
        left_end, right_end = left_bounds[partition + 1], right_bounds[partition + 1]
        while i < left_end or j < right_end:
            from_left, from_right = j == right_end, i == left_end
            if i < left_end and j < right_end:
                a, b = (left[0][i], left[1][i]), (right[0][j], right[1][j])
                from_left, from_right = a <= b, b <= a
            count, documents = np.int64(0), np.int64(0)
            if from_left:
                out[0][place], out[1][place] = left[0][i], left[1][i]
                count, documents = count + np.int64(left[2][i]), documents + np.int64(left[3][i])
                i += 1
            if from_right:
                out[0][place], out[1][place] = right[0][j], right[1][j]
                count, documents = count + np.int64(right[2][j]), documents + np.int64(right[3][j])
                j += 1
            out[2][place], out[3][place] = count, documents
            place += 1
    bounds[left_bounds.shape[0] - 1] = place
