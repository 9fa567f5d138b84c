"""What decoding computes at one position of each sequence, compiled for a CPU: norms, rotations, and the memory.

As torch operations each of these is a dozen calls or more, of a microsecond each, on a few hundred numbers; together they were
more than half of the time of decoding a token with a small model (docs/log.md). `norm.py`, `attention.py` and `memory.py` say
what is computed, for any number of positions; tests hold the two against each other.

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

SUMS = {"reassoc", "contract", "nsz"}  # sums may be taken in any order, so that they use vector instructions


def is_step(x: Tensor) -> bool:
    """Whether compiled code can take x (B, T, …): one position, float32, on a CPU, contiguous, and no gradients wanted."""
    return not torch.is_grad_enabled() and x.shape[1] == 1 and x.is_cpu and x.dtype == torch.float32 and x.is_contiguous()


@intrinsic
def floats(typing_context: Any, number: Any) -> Any:
    """The pointer to float32 numbers at an address, for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


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


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _score(hidden, key, query_gain, key_gain, eps):  # type: ignore[no-untyped-def]
    product = np.float32(0)
    for i in range(hidden.shape[0]):
        product += hidden[i] * key[i] * (query_gain[i] * key_gain[i])
    floor = hidden.shape[0] * eps
    lengths = math.sqrt(_dot(hidden, hidden) + floor) * math.sqrt(_dot(key, key) + floor)
    return product / lengths * math.sqrt(hidden.shape[0])


@njit(cache=True, nogil=True, error_model="numpy")
def _gate(score, signed_root, least):  # type: ignore[no-untyped-def]
    if signed_root:
        score = np.sign(score) * math.sqrt(max(abs(score), least))
    return np.float32(1 / (1 + math.exp(-score)))


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _add_convolved(out, before, taps, gain, dilation, eps):  # type: ignore[no-untyped-def]
    """Adds SiLU of the convolution to `out` (D,); its normalised values push the oldest out of `before` (lookback, D)."""
    size, lookback = out.shape[0], before.shape[0]
    scale = np.float32(math.sqrt(size) / math.sqrt(_dot(out, out) + size * eps))
    last = taps.shape[1] - 1
    for i in range(size):
        newest = out[i] * scale * gain[i]
        mixed = newest * taps[i, last]
        for tap in range(last):
            mixed += before[tap * dilation, i] * taps[i, tap]
        for row in range(lookback - 1):
            before[row, i] = before[row + 1, i]
        if lookback > 0:
            before[lookback - 1, i] = newest
        out[i] += mixed / (1 + math.exp(-mixed))


@njit(cache=True, nogil=True, error_model="numpy")
def remember(  # type: ignore[no-untyped-def]
    shape, hidden, projected, gains, signed_root, gate_eps, least, before, taps, conv_gain, dilation, conv_eps, out
):
    """Fills `out` (B, M, D) with what the memory adds to the streams `hidden` (B, M, D).

    `projected` (B, M + 1, D) holds the keys of all streams and the value, `gains` the addresses of those of queries and keys.
    `before` (B, lookback, M, D), the convolution's history, moves on by this position.
    """
    batch, streams, size, lookback, kernel = shape
    queries, results = carray(floats(hidden), (batch, streams, size)), carray(floats(out), (batch, streams, size))
    keys_and_value = carray(floats(projected), (batch, streams + 1, size))
    history = carray(floats(before), (batch, lookback, streams, size))
    query_gain, key_gain = carray(floats(gains[0]), (streams, size)), carray(floats(gains[1]), (streams, size))
    all_taps, scale = carray(floats(taps), (streams, size, kernel)), carray(floats(conv_gain), (streams, size))
    for b in range(batch):
        for m in range(streams):
            score = _score(queries[b, m], keys_and_value[b, m], query_gain[m], key_gain[m], gate_eps)
            gate = _gate(score, signed_root, least)
            for i in range(size):
                results[b, m, i] = gate * keys_and_value[b, streams, i]
            _add_convolved(results[b, m], history[b, :, m], all_taps[m], scale[m], dilation, conv_eps)


@njit(cache=True, nogil=True, error_model="numpy")
def _rotate(x, cos, sin, out):  # type: ignore[no-untyped-def]
    half = x.shape[0] // 2
    for i in range(half):
        a, b = x[i], x[half + i]
        out[i] = a * cos[i] + b * sin[i]
        out[half + i] = b * cos[half + i] + a * sin[half + i]


@njit(cache=True, nogil=True, error_model="numpy")
def rotate_and_keep(shape, qkv, cos, sin, position, keys, values):  # type: ignore[no-untyped-def]
    """Rotates the queries in `qkv` (B, 3, H, head_dim) in place, and writes the rotated keys and the values of position number
    `position` to the caches `keys` and `values` (B, H, capacity, head_dim).

    `cos` and `sin` (positions, head_dim) are the tables of `Rotary`.
    """
    batch, heads, width, capacity, positions = shape
    here, kept = (batch, 3, heads, width), (batch, heads, capacity, width)
    given, all_keys, all_values = carray(floats(qkv), here), carray(floats(keys), kept), carray(floats(values), kept)
    cosines, sines = carray(floats(cos), (positions, width))[position], carray(floats(sin), (positions, width))[position]
    for b in range(batch):
        for head in range(heads):
            _rotate(given[b, 0, head], cosines, sines, given[b, 0, head])
            _rotate(given[b, 1, head], cosines, sines, all_keys[b, head, position])
            for i in range(width):
                all_values[b, head, position, i] = given[b, 2, head, i]
