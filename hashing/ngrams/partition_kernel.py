"""Kernels that scatter the n-grams of a text by the hash of their newest two ids, and merge sorted runs of them.

Equal n-grams of any order share a partition, so each partition can be counted alone (`distinct_kernel.py`), in a table that
fits the CPU's cache. Only the partitions of one pass are scattered at a time: what is held beside the text is a fraction of it.
Partitions keep the order of the text, so a document that repeats an n-gram is recognised by comparing with the last document
that had it.

Ids come as uint32, canonical id + 1, with 0 for what blocks look-back: no n-gram ends there, and those that reach back to it
hold 0 there and beyond. Packing puts the newest id in the lowest bits; `in_first` ids go into the first word and the older ones
into the second, `rest`, which is 0 for n-grams that fit one word. `mixed` is the first word, folded with the rest, times an odd
number, its upper bits (which for bigrams choose the partition) rotated down: nothing is lost, so `unpack` goes back.
"""

import numpy as np
from numba import njit

from hashing.base.prefetch import AHEAD_BYTES, LINE_BYTES, prefetch, prefetch_to_write

PARTITIONS = 1024
PARTITION_SHIFT = np.uint64(54)
ROTATION = np.uint64(10)
FOLD = np.uint64(0xC2B2AE3D27D4EB4F)
SPREAD = np.uint64(0x9E3779B97F4A7C15)
UNSPREAD = np.uint64(pow(int(SPREAD), -1, 2**64))
LOWER_HALF, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def unpack(mixed, rest, bits, in_first, out):  # type: ignore[no-untyped-def]
    """Fills `out` (order, n-grams) with canonical ids, the oldest first and -1 for what blocks.

    `rest` is empty for n-grams that fit one word.
    """
    order, mask = out.shape[0], np.uint64((1 << bits) - 1)
    for i in range(mixed.shape[0]):
        tail = rest[i] if rest.shape[0] > 0 else np.uint64(0)
        word = ((mixed[i] >> ROTATION) | (mixed[i] << PARTITION_SHIFT)) * UNSPREAD ^ (tail * FOLD)
        for distance in range(order):
            if distance == in_first:
                word = tail
            out[order - 1 - distance, i] = np.int32(word & mask) - np.int32(1)
            word >>= np.uint64(bits)


@njit(cache=True, nogil=True)
def mix(word, rest):  # type: ignore[no-untyped-def]
    product = (word ^ (rest * FOLD)) * SPREAD
    return (product << ROTATION) | (product >> PARTITION_SHIFT)


@njit(cache=True, nogil=True)
def translate(token_ids, mapping, out):  # type: ignore[no-untyped-def]
    """Fills `out` with canonical id + 1, or 0 for token ids below 0; stops if an id is too large.

    Gives the largest token id and how many are below 0. Two loops, since then neither has a branch and both become vector
    instructions.
    """
    largest, dead = np.int64(-1), np.int64(0)
    for i in range(token_ids.shape[0]):
        largest = max(largest, np.int64(token_ids[i]))
        dead += np.int64(token_ids[i]) < 0
    if largest < mapping.shape[0]:
        for i in range(token_ids.shape[0]):
            here = np.int64(token_ids[i])
            out[i] = mapping[np.uint64(max(here, np.int64(0)))] + 1 if here >= 0 else 0
    return largest, dead


@njit(cache=True, nogil=True)
def histogram(ids, first, last, bits, sizes):  # type: ignore[no-untyped-def]
    """Adds to `sizes` (PARTITIONS,) how many n-grams ending at first..last fall into each."""
    shift = np.uint64(bits)
    before = np.uint64(ids[first - 1]) if first > 0 else np.uint64(0)
    for t in range(np.uint64(first), np.uint64(last)):
        prefetch(ids.ctypes.data + 4 * t + AHEAD_BYTES)
        here = np.uint64(ids[t])
        if here != 0:
            sizes[(((before << shift) | here) * SPREAD) >> PARTITION_SHIFT] += 1
        before = here


@njit(cache=True, nogil=True)
def _rolled(word, rest, here, layout):  # type: ignore[no-untyped-def]
    """The two words of the n-gram that ends one id later."""
    shift, first_shift, word_mask, rest_mask = layout
    if here == 0:
        return np.uint64(0), np.uint64(0)
    return ((word << shift) | here) & word_mask, ((rest << shift) | (word >> first_shift)) & rest_mask


@njit(cache=True, nogil=True)
def scatter(ids, starts, first, last, layout, cursors, steps, words, rests, documents):  # type: ignore[no-untyped-def]
    """Writes each n-gram ending at first..last, mixed, and the number of its document, where its partition's cursor points.

    `layout` is (order, bits, in_first, masks of the two words). A cursor moves on by its partition's step: 1, or 0 for a
    partition that is not wanted, so that nothing branches on what cannot be foreseen; its cursor points where nobody reads.
    `starts` are the positions where documents begin; `rests` is empty for n-grams that fit one word.
    """
    order, bits, in_first, word_mask, rest_mask = layout
    wide = rests.shape[0] > 0
    pair_mask = (ONE << np.uint64(2 * bits)) - ONE
    shifts = np.uint64(bits), np.uint64(bits * (in_first - 1)), word_mask, rest_mask
    word, rest = np.uint64(0), np.uint64(0)
    for t in range(max(first - order + 1, 0), first):
        word, rest = _rolled(word, rest, np.uint64(ids[t]), shifts)
    document = np.searchsorted(starts, first, "right")
    while first < last:
        end = min(last, starts[document]) if document < starts.shape[0] else last
        for t in range(np.uint64(first), np.uint64(end)):
            prefetch(ids.ctypes.data + 4 * t + AHEAD_BYTES)
            word, rest = _rolled(word, rest, np.uint64(ids[t]), shifts)
            if word == 0:
                continue
            partition = ((word & pair_mask) * SPREAD) >> PARTITION_SHIFT
            place = cursors[partition]
            cursors[partition] = place + steps[partition]
            words[place] = mix(word, rest)
            prefetch_to_write(words.ctypes.data + 8 * place + LINE_BYTES)
            documents[place] = document
            prefetch_to_write(documents.ctypes.data + 4 * place + LINE_BYTES)
            if wide:
                rests[place] = rest
                prefetch_to_write(rests.ctypes.data + 8 * place + LINE_BYTES)
        first, document = end, document + 1


@njit(cache=True, nogil=True)
def merge(left_bounds, left, right_bounds, right, bounds, out):  # type: ignore[no-untyped-def]
    """Merges two runs, each (mixed, rest, count, documents) sorted within its partitions, adding up what both have.

    The rests are empty for n-grams that fit one word.
    """
    wide = out[1].shape[0] > 0
    a_rest = b_rest = np.uint64(0)
    place = 0
    for partition in range(left_bounds.shape[0] - 1):
        bounds[partition] = place
        i, j = left_bounds[partition], right_bounds[partition]
        left_end, right_end = left_bounds[partition + 1], right_bounds[partition + 1]
        while i < left_end or j < right_end:
            from_left, from_right = j == right_end, i == left_end
            if i < left_end and j < right_end:
                if wide:
                    a_rest, b_rest = left[1][i], right[1][j]
                a, b = (left[0][i], a_rest), (right[0][j], b_rest)
                from_left, from_right = a <= b, b <= a
            count, documents = np.int64(0), np.int64(0)
            if from_left:
                out[0][place] = left[0][i]
                if wide:
                    out[1][place] = left[1][i]
                count, documents = count + np.int64(left[2][i]), documents + np.int64(left[3][i])
                i += 1
            if from_right:
                out[0][place] = right[0][j]
                if wide:
                    out[1][place] = right[1][j]
                count, documents = count + np.int64(right[2][j]), documents + np.int64(right[3][j])
                j += 1
            out[2][place], out[3][place] = count, documents
            place += 1
    bounds[left_bounds.shape[0] - 1] = place
