"""Encodings: how a row's numbers are stored.

A row is one record: its codes, then its scales, side by side, so that a row is one touch of memory. Little-endian throughout.

    name        codes                     scales                                      bytes of a row of H columns
    float32     IEEE binary32             –                                           4·H
    float16     IEEE binary16             –                                           2·H
    bfloat16    upper half of binary32    –                                           2·H
    e4m3-e8m0   OCP FP8 E4M3 (no inf)     e8m0, 2^(byte - 127), per 32 columns        H + ceil(H/32)
    e4m3        OCP FP8 E4M3 (no inf)     one number for the table, kept apart        H
    int8        two's complement          bfloat16, for the row                       H + 2
    int4        two's complement, even    bfloat16, per 32 columns                    ceil(H/2) + 2·ceil(H/32)
                columns in the low half

A value is code · scale in float32. Encoding rounds to nearest even and saturates. The scale is the rounded one that codes are
taken against, and chosen so that encoding what was decoded gives the same record: an e8m0 scale is the smallest that keeps the
largest value from saturating (at most 464, which rounds to 448); an integer scale has 8 significant bits, so that the largest
code is always ±127 or ±7 and its product with the scale is exact. A NaN makes its code NaN, or, for integers, its scale.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from hashing.errors import UsageError
from hashing.prefetch import LINE_BYTES, prefetch

Records = NDArray[np.uint8]  # (rows, row_bytes)
Values = NDArray[np.float32]  # (rows, head_dim)

GROUP = 32  # columns that share a scale
FLOAT16_MAX = 65504.0
E8M0_LARGEST = 246  # 448 · 2^119 is the largest product with a code that float32 holds
BFLOAT16_MAX = float(np.uint32(0x7F7F0000).view(np.float32))
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
def _gather_float32(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_float32, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def _gather_float16(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_float16, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def _gather_bfloat16(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_bfloat16, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def _gather_e4m3(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_e4m3, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def _gather_e4m3_e8m0(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_e4m3_e8m0, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def _gather_int8(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_int8, words, row_bytes, rows, scale, out)


@njit(cache=True, nogil=True)
def _gather_int4(words, row_bytes, rows, scale, out):  # type: ignore[no-untyped-def]
    return _gather(_decode_int4, words, row_bytes, rows, scale, out)


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
    """Of the magnitudes; NaN if one is."""
    largest = np.float32(0)
    for j in range(first, last):
        magnitude = abs(values[i, j])
        if not magnitude <= largest:
            largest = magnitude
        if np.isnan(magnitude):
            return magnitude
    return largest


@njit(inline="always")
def _largest_number(values, i, first, last):  # type: ignore[no-untyped-def]
    """Of the magnitudes, NaN left out."""
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
def _encode_bfloat16(values, scale, words):  # type: ignore[no-untyped-def]
    saturated = 0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            words[i, j] = _bfloat16_bits(values[i, j])
            saturated += np.isfinite(values[i, j]) and abs(values[i, j]) > BFLOAT16_MAX * (1 + 2.0**-9)
    return saturated


@njit(cache=True, nogil=True)
def _encode_e4m3(values, scale, words):  # type: ignore[no-untyped-def]
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
def _encode_e4m3_e8m0(values, scale, words):  # type: ignore[no-untyped-def]
    saturated = 0
    columns = values.shape[1]
    for i in range(values.shape[0]):
        for first in range(0, columns, GROUP):
            last = min(first + GROUP, columns)
            exponent = _e8m0_exponent(_largest_number(values, i, first, last))
            words[i, columns + first // GROUP] = exponent
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
def _encode_int8(values, scale, words):  # type: ignore[no-untyped-def]
    saturated = 0
    columns = values.shape[1]
    for i in range(values.shape[0]):
        bits = _integer_scale(_largest(values, i, 0, columns), 127.0)
        words[i, columns], words[i, columns + 1] = bits & np.uint32(255), bits >> np.uint32(8)
        factor = float_of_bits(np.uint32(bits << np.uint32(16)))
        for j in range(columns):
            words[i, j] = np.uint8(_integer_code(values[i, j], factor, 127.0) & 255)
            saturated += abs(values[i, j]) > 127.5 * factor
    return saturated


@njit(cache=True, nogil=True)
def _encode_int4(values, scale, words):  # type: ignore[no-untyped-def]
    saturated = 0
    columns = values.shape[1]
    scales = (columns + 1) // 2
    for i in range(values.shape[0]):
        words[i, :scales] = 0
        for first in range(0, columns, GROUP):
            last = min(first + GROUP, columns)
            bits = _integer_scale(_largest(values, i, first, last), 7.0)
            at = scales + first // GROUP * 2
            words[i, at], words[i, at + 1] = bits & np.uint32(255), bits >> np.uint32(8)
            factor = float_of_bits(np.uint32(bits << np.uint32(16)))
            for j in range(first, last):
                code = _integer_code(values[i, j], factor, 7.0) & 15
                words[i, j >> 1] |= np.uint8(code << (4 * (j & 1)))
                saturated += abs(values[i, j]) > 7.5 * factor
    return saturated


def _encode_float32(values: Values, scale: np.float32, words: NDArray[np.float32]) -> int:
    words[:] = values
    return 0


def _encode_float16(values: Values, scale: np.float32, words: NDArray[np.uint16]) -> int:
    beyond = np.isfinite(values) & (np.abs(values) > FLOAT16_MAX)
    words.view(np.float16)[:] = np.where(beyond, np.copysign(np.float32(FLOAT16_MAX), values), values)
    return int((np.abs(values[beyond]) >= 65520).sum())


@dataclass(frozen=True, slots=True)
class Encoding:
    """One line of the table above."""

    name: str
    word: str  # dtype in which a kernel sees a record
    code_bits: int
    scale_bytes: int  # per group of columns; 0: no scale in the record
    group: int  # columns that share a scale; 0: the whole row
    gather: Callable[..., int]
    encode: Callable[..., int]

    def code_bytes(self, head_dim: int) -> int:
        return (head_dim * self.code_bits + 7) // 8

    def row_bytes(self, head_dim: int) -> int:
        return self.code_bytes(head_dim) + self.scales(head_dim) * self.scale_bytes

    def scales(self, head_dim: int) -> int:
        """Scales in a record."""
        if not self.scale_bytes:
            return 0
        return -(-head_dim // self.group) if self.group else 1

    @property
    def table_scale(self) -> bool:
        """Whether codes are taken against one number for the whole table."""
        return self.name == "e4m3"

    def words(self, records: Records) -> NDArray[Any]:
        """(rows, row_bytes / word bytes) The records as a kernel sees them; `records` is contiguous."""
        return records.view(self.word)

    def encoded(self, values: Values, scale: float = 1.0) -> tuple[Records, int]:
        """Records of rows, and how many values were beyond what a code can hold."""
        records = np.empty((len(values), self.row_bytes(values.shape[1])), np.uint8)
        saturated = self.encode(np.ascontiguousarray(values), np.float32(scale), self.words(records))
        return records, int(saturated)

    def decoded(self, records: Records, head_dim: int, scale: float = 1.0) -> Values:
        """(rows, head_dim) The values of records."""
        out = np.empty((len(records), head_dim), np.float32)
        rows = np.arange(len(records))
        self.gather(self.words(np.ascontiguousarray(records)), records.shape[1], rows, np.float32(scale), out)
        return out


ENCODINGS = {
    e.name: e
    for e in (
        Encoding("float32", "<f4", 32, 0, 0, _gather_float32, _encode_float32),
        Encoding("float16", "<u2", 16, 0, 0, _gather_float16, _encode_float16),
        Encoding("bfloat16", "<u2", 16, 0, 0, _gather_bfloat16, _encode_bfloat16),
        Encoding("e4m3-e8m0", "u1", 8, 1, GROUP, _gather_e4m3_e8m0, _encode_e4m3_e8m0),
        Encoding("e4m3", "u1", 8, 0, 0, _gather_e4m3, _encode_e4m3),
        Encoding("int8", "u1", 8, 2, 0, _gather_int8, _encode_int8),
        Encoding("int4", "u1", 4, 2, GROUP, _gather_int4, _encode_int4),
    )
}


def encoding(name: str) -> Encoding:
    if name not in ENCODINGS:
        raise UsageError(f'no encoding is called "{name}"', hint=f"the names are {', '.join(ENCODINGS)}")
    return ENCODINGS[name]
