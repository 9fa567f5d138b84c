"""What decoding computes for each row of a batch, compiled for a CPU: norms, SwiGLU, attention over pages, the memory.

As torch operations each of these is a dozen calls or more, of a microsecond each, on a few hundred numbers; together they were
more than half of the time of decoding a token with a small model (docs/log.md). `norm.py`, `attention.py` and `memory.py` say
what is computed; tests hold the two against each other. What a row gives depends on nothing but its own sequence, to the bit.

Compiled functions take tensors by their addresses: making an array of a tensor, and looking into the array, takes a microsecond
each time. Callers see to it that there are contiguous float32 numbers at an address, and keep the tensor until the call
returns.
"""

import math
from typing import Any

import numpy as np
import torch
from numba import carray, njit, types
from numba.extending import intrinsic
from torch import Tensor

from hashing.base.prefetch import LINE_BYTES, prefetch
from runtime.model.exp_kernel import exp
from runtime.model.pages import PAGE

SUMS = {"reassoc", "contract", "nsz"}  # sums may be taken in any order, so that they use vector instructions


def is_decoded(x: Tensor) -> bool:
    """Whether compiled code can take x: float32, on a CPU, contiguous, and no gradients wanted."""
    plain = x.is_cpu and x.dtype == torch.float32 and x.is_contiguous()
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _pointers(kind: Any) -> Any:
    """Compiled code that gives the pointer to numbers at an address, for `numba.carray`."""

    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return pointer


floats, longs = _pointers(types.float32), _pointers(types.int64)


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@njit(cache=True, nogil=True, fastmath=SUMS, error_model="numpy")
def normalise(x, gain, out, rows, size, eps):  # type: ignore[no-untyped-def]
    """Fills `out` (rows, size) with x (rows, size), each row normalised and scaled by `gain` (size,)."""
    given, gains, results = carray(floats(x), (rows, size)), carray(floats(gain), size), carray(floats(out), (rows, size))
    for row in range(rows):
        scale = np.float32(1 / math.sqrt(_dot(given[row], given[row]) / size + eps))
        for i in range(size):
            results[row, i] = given[row, i] * scale * gains[i]


@njit(cache=True, nogil=True, error_model="numpy")
def gated(x, out, rows, size):  # type: ignore[no-untyped-def]
    """Fills `out` (rows, size) with SiLU of the first half of each row of x (rows, 2 · size), times the second half."""
    given, results = carray(floats(x), (rows, 2, size)), carray(floats(out), (rows, size))
    for row in range(rows):
        for i in range(size):
            gate = given[row, 0, i]
            results[row, i] = gate / (np.float32(1) + exp(-gate)) * given[row, 1, i]


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _score(hidden, key, query_gain, key_gain, eps):  # type: ignore[no-untyped-def]
    product = np.float32(0)
    for i in range(hidden.shape[0]):
        product += hidden[i] * key[i] * (query_gain[i] * key_gain[i])
    floor = hidden.shape[0] * eps
    lengths = math.sqrt(_dot(hidden, hidden) + floor) * math.sqrt(_dot(key, key) + floor)
    return product / lengths * math.sqrt(hidden.shape[0])


@njit(cache=True, nogil=True, error_model="numpy")
def _gate(score, form, least):  # type: ignore[no-untyped-def]
    """Of form 0 always open, 1 the sigmoid of the score, 2 that of its signed root."""
    if form == 0:
        return np.float32(1)
    if form == 2:
        score = np.sign(score) * math.sqrt(max(abs(score), least))
    return np.float32(1 / (1 + math.exp(-score)))


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _add_convolved(out, pages, table, position, stream, taps, gain, dilation, eps):  # type: ignore[no-untyped-def]
    """Adds SiLU of the convolution to `out` (D,), and leaves its normalised values in `pages` (pages, PAGE, M, D)."""
    size, last = out.shape[0], taps.shape[1] - 1
    scale = np.float32(math.sqrt(size) / math.sqrt(_dot(out, out) + size * eps))
    here = pages[table[position // PAGE], position % PAGE, stream]
    mixed = np.empty(size, np.float32)
    for i in range(size):
        here[i] = out[i] * scale * gain[i]
        mixed[i] = here[i] * taps[i, last]
    for tap in range(last):
        before = position - (last - tap) * dilation
        if before >= 0:
            earlier = pages[table[before // PAGE], before % PAGE, stream]
            for i in range(size):
                mixed[i] += earlier[i] * taps[i, tap]
    for i in range(size):
        out[i] += mixed[i] / (np.float32(1) + exp(-mixed[i]))


@njit(cache=True, nogil=True, error_model="numpy")
def remember(shape, places, hidden, projected, gate, conv, dilation, conv_eps, out):  # type: ignore[no-untyped-def]
    """Fills `out` (N, M, D) with what the memory adds to the streams `hidden` (N, M, D) of a batch's rows.

    `places` has the batch's owners, positions and tables, `projected` (N, M + 1, D) the keys of all streams and the value;
    `gate` its form, the norms' eps, the least score, and the gains of queries and keys (M, D); `conv` the number of pages and
    of taps (0: no convolution), the pages' convolved values (pages, PAGE, M, D), taps (M, D, taps) and gain (M, D).
    """
    rows, streams, size = shape
    owners, positions, tables = places
    form, gate_eps, least, query_gains, key_gains = gate
    pages, kernel, convolved, taps, conv_gains = conv
    queries, results = carray(floats(hidden), (rows, streams, size)), carray(floats(out), (rows, streams, size))
    keys_and_value = carray(floats(projected), (rows, streams + 1, size))
    kept = carray(floats(convolved), (pages, PAGE, streams, size))
    query_gain, key_gain = carray(floats(query_gains), (streams, size)), carray(floats(key_gains), (streams, size))
    all_taps, scale = carray(floats(taps), (streams, size, kernel)), carray(floats(conv_gains), (streams, size))
    for row in range(rows):
        for m in range(streams):
            score = _score(queries[row, m], keys_and_value[row, m], query_gain[m], key_gain[m], gate_eps)
            opening = _gate(score, form, least)
            for i in range(size):
                results[row, m, i] = opening * keys_and_value[row, streams, i]
            if kernel > 0 and positions[row] >= 0:
                _add_convolved(
                    results[row, m], kept, tables[owners[row]], positions[row], m, all_taps[m], scale[m], dilation, conv_eps
                )


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _normalised(x, gain, eps):  # type: ignore[no-untyped-def]
    """x (width,) normalised and scaled by `gain` (width,) in place; no gain leaves it."""
    if gain.shape[0] > 0:
        scale = np.float32(1 / math.sqrt(_dot(x, x) / x.shape[0] + eps))
        for i in range(x.shape[0]):
            x[i] *= scale * gain[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _rotate(x, cos, sin):  # type: ignore[no-untyped-def]
    half = x.shape[0] // 2
    for i in range(half):
        a, b = x[i], x[half + i]
        x[i] = a * cos[i] + b * sin[i]
        x[half + i] = b * cos[half + i] + a * sin[half + i]


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _attend_page(query, keys, values, count, weights, mixed, largest, total):  # type: ignore[no-untyped-def]
    """Adds the first `count` positions of a page to what a query has read; the new largest score and the new sum of weights.

    Softmax is summed up as it goes (Milakov and Gimelshein 2018): `mixed` (width,) and `total` are relative to exp(largest).
    """
    new = largest
    for j in range(count):
        value = values[j].ctypes.data  # of the same position: it is read next, and in memory lies far from the keys
        for byte in range(0, values.shape[1] * values.itemsize, LINE_BYTES):
            prefetch(value + byte)
        weights[j] = _dot(query, keys[j])
        new = max(new, weights[j])
    kept = np.float32(math.exp(largest - new))
    total *= kept
    for i in range(mixed.shape[0]):
        mixed[i] *= kept
    for j in range(count):
        weights[j] = exp(weights[j] - new)
        total += weights[j]
    for j in range(0, count - 3, 4):
        a, b, c, d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        for i in range(mixed.shape[0]):
            mixed[i] += a * values[j, i] + b * values[j + 1, i] + c * values[j + 2, i] + d * values[j + 3, i]
    for j in range(count - count % 4, count):
        for i in range(mixed.shape[0]):
            mixed[i] += weights[j] * values[j, i]
    return new, total


@njit(cache=True, nogil=True, error_model="numpy")
def place_rows(shape, places, qkv, gains, eps, rotations, keys, values):  # type: ignore[no-untyped-def]
    """The first half of attention (`helper_kernel.attend`): makes queries and keys in place, and puts keys and values where
    they belong in their pages.
    """
    rows, heads, key_heads, width, pages, positions_known, gain_width = shape
    owners, positions, tables = places
    given = carray(floats(qkv), (rows, heads + 2 * key_heads, width))
    all_keys = carray(floats(keys), (pages, key_heads, PAGE, width))
    all_values = carray(floats(values), (pages, key_heads, PAGE, width))
    query_gain, key_gain = carray(floats(gains[0]), (gain_width,)), carray(floats(gains[1]), (gain_width,))
    cos = carray(floats(rotations[0]), (positions_known, width))
    sin = carray(floats(rotations[1]), (positions_known, width))
    for row in range(rows):
        position = positions[row]
        if position < 0:
            continue
        page, place = tables[owners[row], position // PAGE], position % PAGE
        for head in range(heads + key_heads):
            _normalised(given[row, head], query_gain if head < heads else key_gain, eps)
            _rotate(given[row, head], cos[position], sin[position])
        for head in range(key_heads):
            for i in range(width):
                all_keys[page, head, place, i] = given[row, heads + head, i]
                all_values[page, head, place, i] = given[row, heads + key_heads + head, i]


@njit(cache=True, nogil=True, error_model="numpy")
def read_rows(shape, lists, qkv, keys, values, out):  # type: ignore[no-untyped-def]
    """The second half of attention: each row's query reads the positions up to its own.

    `lists` has the addresses of the rows' owners and positions and of the tables, and how many pages a table has.
    """
    rows, heads, key_heads, width, pages = shape
    owners, positions = carray(longs(lists[0]), rows), carray(longs(lists[1]), rows)
    given, results = carray(floats(qkv), (rows, heads + 2 * key_heads, width)), carray(floats(out), (rows, heads, width))
    all_keys = carray(floats(keys), (pages, key_heads, PAGE, width))
    all_values = carray(floats(values), (pages, key_heads, PAGE, width))
    scale, weights, group = np.float32(1 / math.sqrt(width)), np.empty(PAGE, np.float32), heads // key_heads
    for row in range(rows):
        position = positions[row]
        table = carray(longs(lists[2] + owners.itemsize * owners[row] * lists[3]), lists[3])
        for head in range(heads):
            query, mixed = given[row, head], results[row, head]
            largest, total = np.float32(-np.inf), np.float32(0)
            for i in range(width):
                query[i] *= scale
                mixed[i] = 0
            for number in range(position // PAGE + 1 if position >= 0 else 0):
                page = table[number]
                count = min(PAGE, position + 1 - number * PAGE)
                largest, total = _attend_page(
                    query, all_keys[page, head // group], all_values[page, head // group], count, weights, mixed, largest, total
                )
            if total > 0:
                for i in range(width):
                    mixed[i] /= total
