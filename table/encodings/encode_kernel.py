"""From float32 to records: nearest even, saturating, with the scales that `encoding.py` describes.

Each gives how many values were beyond what a code can hold.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from table.encodings.decode_kernel import bits_of_float, float_of_bits
from table.encodings.encoding import GROUP, Values

FLOAT16_MAX = 65504.0
E8M0_LARGEST = 246  # 448 · 2^119 is the largest product with a code that float32 holds
BFLOAT16_MAX = float(np.uint32(0x7F7F0000).view(np.float32))


@njit(inline="always")
def _e4m3_code(value):  # type: ignore[no-untyped-def]
    """Nearest even code of a float32, saturating; the sign of a NaN is kept."""
    bits = bits_of_float(value)
    sign = np.uint8((bits >> np.uint32(24)) & np.uint32(0x80))
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    if magnitude > np.uint32(0x7F800000):
        return np.uint8(0x7F) | sign
    if magnitude >= np.uint32(121 << 23):
        rounded = np.uint32(magnitude + np.uint32(0x7FFFF) + ((magnitude >> np.uint32(20)) & np.uint32(1)))
        code = np.uint32((rounded >> np.uint32(20)) - np.uint32(120 << 3))
    else:
        code = np.uint32(np.rint(float_of_bits(magnitude) * np.float32(512.0)))
    return np.uint8(min(code, np.uint32(0x7E))) | sign


@njit(inline="always")
def _largest(values, i, first, last):  # type: ignore[no-untyped-def]
    """The largest magnitude in places first..last of row i, or NaN if one of them is NaN."""
    largest = np.float32(0)
    for j in range(first, last):
        magnitude = abs(values[i, j])
        if np.isnan(magnitude):
            return magnitude
        largest = max(largest, magnitude)
    return largest


@njit(inline="always")
def _largest_number(values, i, first, last):  # type: ignore[no-untyped-def]
    """The largest magnitude in places first..last of row i, NaN left out."""
    largest = np.float32(0)
    for j in range(first, last):
        if abs(values[i, j]) > largest:
            largest = abs(values[i, j])
    return largest


@njit(inline="always")
def _bfloat16_bits(value):  # type: ignore[no-untyped-def]
    """Nearest even, saturating below infinity."""
    bits = bits_of_float(value)
    if (bits & np.uint32(0x7FFFFFFF)) >= np.uint32(0x7F800000):
        quiet = np.uint32(0x40) if np.isnan(value) and not (bits >> np.uint32(16)) & np.uint32(0x7F) else np.uint32(0)
        return np.uint32((bits >> np.uint32(16)) | quiet)
    rounded = np.uint32((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))
    if (rounded & np.uint32(0x7FFF)) == np.uint32(0x7F80):
        rounded -= np.uint32(1)
    return rounded


@njit(cache=True, nogil=True)
def encode_bfloat16(values, scale, words):  # type: ignore[no-untyped-def]
    saturated = 0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            words[i, j] = _bfloat16_bits(values[i, j])
            saturated += np.isfinite(values[i, j]) and abs(values[i, j]) > BFLOAT16_MAX * (1 + 2.0**-9)
    return saturated


@njit(cache=True, nogil=True)
def encode_e4m3(values, scale, words):  # type: ignore[no-untyped-def]
    saturated = 0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            quotient = values[i, j] / scale
            words[i, j] = _e4m3_code(np.float32(quotient))
            saturated += abs(quotient) > 464
    return saturated


@njit(inline="always")
def _e8m0_exponent(largest):  # type: ignore[no-untyped-def]
    """The smallest scale under which `largest` does not saturate: its own exponent less 8, or one more; 0 for zeros."""
    exponent = max(0, min(E8M0_LARGEST, (bits_of_float(largest) >> np.uint32(23)) - np.int64(8)))
    above = exponent < E8M0_LARGEST and np.float64(largest) > 464 * 2.0 ** (exponent - 127)
    return exponent + above


@njit(cache=True, nogil=True)
def encode_e4m3_e8m0(values, scale, words):  # type: ignore[no-untyped-def]
    saturated = 0
    head_dim = values.shape[1]
    for i in range(values.shape[0]):
        for first in range(0, head_dim, GROUP):
            last = min(first + GROUP, head_dim)
            exponent = _e8m0_exponent(_largest_number(values, i, first, last))
            words[i, head_dim + first // GROUP] = exponent
            for j in range(first, last):
                quotient = np.float64(values[i, j]) * 2.0 ** (127 - exponent)
                words[i, j] = _e4m3_code(np.float32(quotient))
                saturated += abs(quotient) > 464
    return saturated


@njit(inline="always")
def _integer_scale(largest, maximum):  # type: ignore[no-untyped-def]
    """bfloat16 bits of the scale; never subnormal, where 8 significant bits would not be had."""
    if largest == 0:
        return np.uint32(0)
    bounded = largest if np.isnan(largest) else min(largest, np.float32(BFLOAT16_MAX))
    bits = _bfloat16_bits(np.float32(bounded / np.float32(maximum)))
    return max(bits, np.uint32(0x80))


@njit(inline="always")
def _integer_code(value, factor, maximum):  # type: ignore[no-untyped-def]
    if factor == 0 or np.isnan(factor):
        return np.int32(0)
    return np.int32(max(-maximum, min(maximum, np.rint(value / factor))))


@njit(cache=True, nogil=True)
def encode_int8(values, scale, words):  # type: ignore[no-untyped-def]
    saturated = 0
    head_dim = values.shape[1]
    for i in range(values.shape[0]):
        bits = _integer_scale(_largest(values, i, 0, head_dim), 127.0)
        words[i, head_dim], words[i, head_dim + 1] = bits & np.uint32(255), bits >> np.uint32(8)
        factor = float_of_bits(np.uint32(bits << np.uint32(16)))
        for j in range(head_dim):
            words[i, j] = np.uint8(_integer_code(values[i, j], factor, 127.0) & 255)
            saturated += abs(values[i, j]) > 127.5 * factor
    return saturated


@njit(cache=True, nogil=True)
def encode_int4(values, scale, words):  # type: ignore[no-untyped-def]
    saturated = 0
    head_dim = values.shape[1]
    scales = (head_dim + 1) // 2
    for i in range(values.shape[0]):
        words[i, :scales] = 0
        for first in range(0, head_dim, GROUP):
            last = min(first + GROUP, head_dim)
            bits = _integer_scale(_largest(values, i, first, last), 7.0)
            at = scales + first // GROUP * 2
            words[i, at], words[i, at + 1] = bits & np.uint32(255), bits >> np.uint32(8)
            factor = float_of_bits(np.uint32(bits << np.uint32(16)))
            for j in range(first, last):
                code = _integer_code(values[i, j], factor, 7.0) & 15
                words[i, j >> 1] |= np.uint8(code << (4 * (j & 1)))
                saturated += abs(values[i, j]) > 7.5 * factor
    return saturated


def encode_float32(values: Values, scale: np.float32, words: NDArray[np.uint32]) -> int:
    words.view(np.float32)[:] = values
    return 0


def encode_float16(values: Values, scale: np.float32, words: NDArray[np.uint16]) -> int:
    beyond = np.isfinite(values) & (np.abs(values) > FLOAT16_MAX)
    words.view(np.float16)[:] = np.where(beyond, np.copysign(np.float32(FLOAT16_MAX), values), values)
    return int((np.abs(values[beyond]) >= 65520).sum())
