"""Decoding a few rows without compiled code: numpy alone is done before that would be loaded, a quarter of a second.

`encoding.py` defines what is decoded; the compiled kernels of `decode_kernel.py` give the same numbers bit for bit, and are for
everything that is more than a handful of rows.
"""

import numpy as np
from numpy.typing import NDArray

from table.encodings.encoding import Encoding, Records, Values


def decoded_few(encoding: Encoding, records: Records, head_dim: int, scale: float = 1.0) -> Values:
    """(rows, head_dim) What `Encoding.decoded` gives."""
    split = encoding.code_bytes(head_dim)
    codes = _codes(encoding, np.ascontiguousarray(records[:, :split]), head_dim)
    if not encoding.scale_bytes:
        return codes * np.float32(scale) if encoding.table_scale else codes
    stored = np.ascontiguousarray(records[:, split:])
    scales = _bfloat16(stored.view("<u2")) if encoding.scale_bytes == 2 else _e8m0(stored)
    per_number = np.repeat(scales, encoding.group or head_dim, axis=1)[:, :head_dim]
    with np.errstate(over="ignore", invalid="ignore"):
        values: Values = codes * per_number
    return values


def _codes(encoding: Encoding, codes: Records, head_dim: int) -> Values:
    match encoding.name:
        case "float32" | "float16":
            return codes.view("<f4" if encoding.name == "float32" else "<f2").astype(np.float32)
        case "bfloat16":
            return _bfloat16(codes.view("<u2"))
        case "int8":
            return codes.view(np.int8).astype(np.float32)
        case "int4":
            halves = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)[:, :head_dim].astype(np.int8)
            return ((halves ^ 8) - 8).astype(np.float32)
    assert encoding.name.startswith("e4m3"), "every encoding has a case"
    return _e4m3(codes)


def _bfloat16(bits: NDArray[np.uint16]) -> Values:
    values: Values = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values


def _e8m0(codes: Records) -> Values:
    """2^(code - 127), which for code 0 is below the smallest normal number; 255 is no number."""
    return np.where(codes == 255, np.float32(np.nan), np.ldexp(np.float32(1), np.minimum(codes, 254).astype(np.int32) - 127))


def _e4m3(codes: Records) -> Values:
    """Sign, 4 bits of exponent with bias 7, 3 of mantissa; exponent 0 is subnormal; all ones are no number."""
    magnitude = (codes & 127).astype(np.int32)
    exponent, mantissa = magnitude >> 3, magnitude & 7
    normal = np.ldexp((8 + mantissa).astype(np.float32), exponent - 10)
    values = np.where(exponent == 0, np.ldexp(mantissa.astype(np.float32), -9), normal)
    values[magnitude == 127] = np.nan
    return np.where(codes > 127, -values, values)
