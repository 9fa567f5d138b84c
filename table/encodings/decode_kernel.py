"""Decoding records to float32, straight into a gather's output: one compiled kernel per encoding, exact for every code.

Integer arithmetic on the code's bits is exact and becomes vector instructions; a table of 256 floats does not. Special values
are chosen by conditional expressions, which become masks; an `if` statement that assigns can keep the loop from becoming
vectors.

A kernel takes the records by their address, as integers: reading a read-only array's type and shape anew costs more, for few
rows, than gathering them. Whoever calls one keeps the records alive.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from hashing.base.prefetch import LINE_BYTES, prefetch
from table.encodings.encoding import GROUP

PREFETCH_ROWS = 16  # how far ahead of the row being decoded memory is asked for


@intrinsic
def pointer_to(typing_context: Any, address: Any) -> Any:
    """The address as a pointer, for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


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
    subnormal = bits_of_float(np.float32(np.int32(magnitude)) * np.float32(2.0**-24))
    rebias = np.uint32(224 << 23) if magnitude >= np.uint32(0x7C00) else np.uint32(112 << 23)
    normal = np.uint32((magnitude << np.uint32(13)) + rebias)
    bits = subnormal if magnitude < np.uint32(0x0400) else normal
    return float_of_bits(np.uint32(bits | ((np.uint32(code) & np.uint32(0x8000)) << np.uint32(16))))


@njit(inline="always")
def _e4m3_value(code):  # type: ignore[no-untyped-def]
    magnitude = np.uint32(code) & np.uint32(0x7F)
    subnormal = bits_of_float(np.float32(np.int32(magnitude)) * np.float32(2.0**-9))
    normal = np.uint32((magnitude << np.uint32(20)) + np.uint32(120 << 23))
    bits = subnormal if magnitude < np.uint32(0x08) else normal
    bits = np.uint32(0x7FC00000) if magnitude == np.uint32(0x7F) else bits
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
    head_dim = out.shape[1]
    groups = head_dim // GROUP
    for group in range(groups):  # a constant trip count is unrolled into vectors: twice the speed
        factor = _e8m0_value(words[row, head_dim + group])
        for j in range(GROUP):
            out[i, group * GROUP + j] = _e4m3_value(words[row, group * GROUP + j]) * factor
    for j in range(groups * GROUP, head_dim):
        out[i, j] = _e4m3_value(words[row, j]) * _e8m0_value(words[row, head_dim + groups])


@njit(inline="always")
def _decode_int8(words, row, scale, out, i):  # type: ignore[no-untyped-def]
    head_dim = out.shape[1]
    factor = _bfloat16_value(words[row, head_dim], words[row, head_dim + 1])
    for j in range(head_dim):
        out[i, j] = np.float32(np.int8(words[row, j])) * factor


@njit(inline="always")
def _decode_int4(words, row, scale, out, i):  # type: ignore[no-untyped-def]
    head_dim = out.shape[1]
    scales = (head_dim + 1) // 2
    for group in range((head_dim + GROUP - 1) // GROUP):
        first = group * GROUP
        factor = _bfloat16_value(words[row, scales + 2 * group], words[row, scales + 2 * group + 1])
        if first + GROUP <= head_dim:
            for pair in range(GROUP // 2):
                byte = words[row, first // 2 + pair]
                out[i, first + 2 * pair] = _int4_value(byte, 0) * factor
                out[i, first + 2 * pair + 1] = _int4_value(byte, 1) * factor
        else:
            for j in range(first, head_dim):
                out[i, j] = _int4_value(words[row, j >> 1], j & 1) * factor


@njit(inline="always")
def _ask_for(address, row_bytes):  # type: ignore[no-untyped-def]
    for offset in range(0, row_bytes, LINE_BYTES):
        prefetch(address + offset)
    prefetch(address + row_bytes - 1)  # a record need not begin with a line


@njit(inline="always")
def _gather(decode, words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    """Decodes `rows` of `words` into `out`; gives the position of the first row out of range, or -1."""
    base = words.ctypes.data
    count = rows.shape[0]
    factor = np.float32(scale)
    for i in range(min(PREFETCH_ROWS, count)):
        _ask_for(base + np.int64(rows[i]) * row_bytes, row_bytes)
    for i in range(count):
        ahead = i + PREFETCH_ROWS
        if ahead < count:
            _ask_for(base + np.int64(rows[ahead]) * row_bytes, row_bytes)
        row = np.int64(rows[i])
        if row < 0 or row >= words.shape[0]:
            return i
        decode(words, row, factor, out, i)
    return -1


# One kernel per encoding, each named in the module: numba keeps on disk what it can find again by name, and no closure.
# They take the address of the first record, how many records there are and the bytes of one; row numbers (count,); the
# table's scale; and float32 (count, head_dim) to fill. They give the position of the first row number out of range, or -1.


@njit(cache=True, nogil=True)
def gather_float32(base, records, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    words = carray(pointer_to(base), (records, row_bytes // 4), np.float32)
    return _gather(_decode_float32, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_float16(base, records, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    words = carray(pointer_to(base), (records, row_bytes // 2), np.uint16)
    return _gather(_decode_float16, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_bfloat16(base, records, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    words = carray(pointer_to(base), (records, row_bytes // 2), np.uint16)
    return _gather(_decode_bfloat16, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_e4m3(base, records, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    words = carray(pointer_to(base), (records, row_bytes), np.uint8)
    return _gather(_decode_e4m3, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_e4m3_e8m0(base, records, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    words = carray(pointer_to(base), (records, row_bytes), np.uint8)
    return _gather(_decode_e4m3_e8m0, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_int8(base, records, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    words = carray(pointer_to(base), (records, row_bytes), np.uint8)
    return _gather(_decode_int8, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def gather_int4(base, records, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    words = carray(pointer_to(base), (records, row_bytes), np.uint8)
    return _gather(_decode_int4, words, row_bytes, rows, scale, out)
