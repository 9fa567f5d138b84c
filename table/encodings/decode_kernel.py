"""From records to float32, straight into a gather's output: one compiled kernel per encoding, exact for every code.

Integer arithmetic on the code's bits is exact and becomes vector instructions; a table of 256 floats does not.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from hashing.base.prefetch import LINE_BYTES, prefetch

GROUP = 32  # columns that share a scale
PREFETCH_ROWS = 8  # how far ahead of the row being decoded memory is asked for


@intrinsic
def float_of_bits(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def bits_of_float(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@njit(inline="always")
def _bfloat16_value(low, high):  # type: ignore[no-untyped-def]
    return float_of_bits(np.uint32((np.uint32(high) << np.uint32(24)) | (np.uint32(low) << np.uint32(16))))


@njit(inline="always")
def _float16_value(code):  # type: ignore[no-untyped-def]
    """Subnormals go through an exact integer conversion: arithmetic on subnormal float32 would be slow."""
    magnitude = np.uint32(code) & np.uint32(0x7FFF)
    bits = np.uint32((magnitude << np.uint32(13)) + np.uint32(112 << 23))
    if magnitude >= np.uint32(0x7C00):
        bits = np.uint32(bits + np.uint32(112 << 23))
    if magnitude < np.uint32(0x0400):
        bits = bits_of_float(np.float32(np.int32(magnitude)) * np.float32(2.0**-24))
    return float_of_bits(np.uint32(bits | ((np.uint32(code) & np.uint32(0x8000)) << np.uint32(16))))


@njit(inline="always")
def _e4m3_value(code):  # type: ignore[no-untyped-def]
    magnitude = np.uint32(code) & np.uint32(0x7F)
    bits = np.uint32((magnitude << np.uint32(20)) + np.uint32(120 << 23))
    if magnitude < np.uint32(0x08):
        bits = bits_of_float(np.float32(np.int32(magnitude)) * np.float32(2.0**-9))
    if magnitude == np.uint32(0x7F):
        bits = np.uint32(0x7FC00000)
    return float_of_bits(np.uint32(bits | ((np.uint32(code) & np.uint32(0x80)) << np.uint32(24))))


@njit(inline="always")
def _e8m0_value(code):  # type: ignore[no-untyped-def]
    if code == 0:
        return float_of_bits(np.uint32(0x00400000))
    if code == 255:
        return float_of_bits(np.uint32(0x7FC00000))
    return float_of_bits(np.uint32(np.uint32(code) << np.uint32(23)))


@njit(inline="always")
def _int4_value(byte, half):  # type: ignore[no-untyped-def]
    nibble = np.int32(byte >> np.uint8(4 * half)) & np.int32(15)
    return np.float32((nibble ^ np.int32(8)) - np.int32(8))


@njit(inline="always")
def _decode_float32(words, row, scale, out, i):  # type: ignore[no-untyped-def]
    for j in range(out.shape[1]):
        out[i, j] = words[row, j]


@njit(inline="always")
def _decode_bfloat16(words, row, scale, out, i):  # type: ignore[no-untyped-def]
    for j in range(out.shape[1]):
        out[i, j] = float_of_bits(np.uint32(words[row, j]) << np.uint32(16))


@njit(inline="always")
def _decode_float16(words, row, scale, out, i):  # type: ignore[no-untyped-def]
    for j in range(out.shape[1]):
        out[i, j] = _float16_value(words[row, j])


@njit(inline="always")
def _decode_e4m3(words, row, scale, out, i):  # type: ignore[no-untyped-def]
    for j in range(out.shape[1]):
        out[i, j] = _e4m3_value(words[row, j]) * scale


@njit(inline="always")
def _decode_e4m3_e8m0(words, row, scale, out, i):  # type: ignore[no-untyped-def]
    columns = out.shape[1]
    groups = columns // GROUP
    for group in range(groups):  # a constant trip count is unrolled into vectors: twice the speed
        factor = _e8m0_value(words[row, columns + group])
        for j in range(GROUP):
            out[i, group * GROUP + j] = _e4m3_value(words[row, group * GROUP + j]) * factor
    for j in range(groups * GROUP, columns):
        out[i, j] = _e4m3_value(words[row, j]) * _e8m0_value(words[row, columns + groups])


@njit(inline="always")
def _decode_int8(words, row, scale, out, i):  # type: ignore[no-untyped-def]
    columns = out.shape[1]
    factor = _bfloat16_value(words[row, columns], words[row, columns + 1])
    for j in range(columns):
        out[i, j] = np.float32(np.int8(words[row, j])) * factor


@njit(inline="always")
def _decode_int4(words, row, scale, out, i):  # type: ignore[no-untyped-def]
    columns = out.shape[1]
    scales = (columns + 1) // 2
    for group in range((columns + GROUP - 1) // GROUP):
        first = group * GROUP
        factor = _bfloat16_value(words[row, scales + 2 * group], words[row, scales + 2 * group + 1])
        if first + GROUP <= columns:
            for pair in range(GROUP // 2):
                byte = words[row, first // 2 + pair]
                out[i, first + 2 * pair] = _int4_value(byte, 0) * factor
                out[i, first + 2 * pair + 1] = _int4_value(byte, 1) * factor
        else:
            for j in range(first, columns):
                out[i, j] = _int4_value(words[row, j >> 1], j & 1) * factor


@njit(inline="always")
def _gather(decode, words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    """Decodes `rows` of `words` into `out`; gives the position of the first row out of range, or -1."""
    base = words.ctypes.data
    count = rows.shape[0]
    for i in range(count):
        ahead = i + PREFETCH_ROWS
        if ahead < count:
            address = base + np.int64(rows[ahead]) * row_bytes
            for line in range(0, row_bytes + LINE_BYTES - 1, LINE_BYTES):
                prefetch(address + line)
        row = np.int64(rows[i])
        if row < 0 or row >= words.shape[0]:
            return i
        decode(words, row, scale, out, i)
    return -1


# One kernel per encoding, each named in the module: numba keeps on disk what it can find again by name, and no closure.


@njit(cache=True, nogil=True)
def gather_float32(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_float32, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_float16(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_float16, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_bfloat16(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_bfloat16, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_e4m3(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_e4m3, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_e4m3_e8m0(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_e4m3_e8m0, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_int8(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_int8, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_int4(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_int4, words, row_bytes, rows, scale, out)
