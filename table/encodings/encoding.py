"""Encodings: how a row's numbers are stored.

A row is one record: its codes, then its scales, side by side, so that a row is one touch of memory. Little-endian throughout.

    name        codes                     scales                                      bytes of a row of H numbers
    float32     IEEE binary32             –                                           4·H
    float16     IEEE binary16             –                                           2·H
    bfloat16    upper half of binary32    –                                           2·H
    e4m3-e8m0   OCP FP8 E4M3 (no inf)     e8m0, 2^(byte - 127), per 32 numbers        H + ceil(H/32)
    e4m3        OCP FP8 E4M3 (no inf)     one number for the table, kept apart        H
    int8        two's complement          bfloat16, for the row                       H + 2
    int4        two's complement, even    bfloat16, per 32 numbers                    ceil(H/2) + 2·ceil(H/32)
                ones in the low half

A value is code · scale in float32. Encoding rounds to nearest even and saturates. The scale is the rounded one that codes are
taken against, and chosen so that encoding what was decoded gives the same record: an e8m0 scale is the smallest that keeps the
largest value from saturating (at most 464, which rounds to 448); an integer scale has 8 significant bits, so that the largest
code is always ±127 or ±7 and its product with the scale is exact. A NaN makes its code NaN, or, for integers, its scale.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import UsageError

GROUP = 32  # numbers that share a scale

Records = NDArray[np.uint8]  # (rows, row_bytes)
Values = NDArray[np.float32]  # (rows, head_dim)


@dataclass(frozen=True)
class Encoding:
    """One line of the table above, and everything else that depends on the encoding.

    Without slots, so that a kernel is an attribute from its first use on: a gather of few rows is as short as a look-up.
    """

    name: str
    word: str  # dtype in which a kernel sees a record
    code_bits: int
    zarr_dtype: str  # of the array that holds the records
    safetensors_dtype: str | None  # of the codes in a checkpoint; None: no published checkpoint has such codes
    magnitude: int  # bits of a word that make up a code's magnitude
    not_finite: int  # smallest magnitude that is NaN or infinite; beyond the mask where every code is a number
    scale_bytes: int = 0  # per group of numbers; 0: no scale in the record
    group: int = 0  # numbers that share a scale; 0: the whole row
    table_scale: bool = False  # whether codes are taken against one number for the whole table

    @cached_property
    def gather(self) -> Callable[..., int]:
        """The kernel that decodes rows into a gather's output; `decode_kernel.py` says what it takes."""
        return _kernel("decode", "gather", self.name)

    @cached_property
    def encode(self) -> Callable[..., int]:
        """The kernel that makes records of values; `encode_kernel.py` says what it takes."""
        return _kernel("encode", "encode", self.name)

    def code_bytes(self, head_dim: int) -> int:
        return (head_dim * self.code_bits + 7) // 8

    def row_bytes(self, head_dim: int) -> int:
        return self.code_bytes(head_dim) + self.scales(head_dim) * self.scale_bytes

    def scales(self, head_dim: int) -> int:
        """Scales in a record."""
        if not self.scale_bytes:
            return 0
        return -(-head_dim // self.group) if self.group else 1

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
        contiguous = np.ascontiguousarray(records)
        self.gather(contiguous.ctypes.data, len(records), records.shape[1], np.arange(len(records)), scale, out)
        return out


def _kernel(module: str, verb: str, name: str) -> Callable[..., int]:
    """Compiled code is loaded when a row is read or written for the first time: to describe an encoding takes none."""
    kernel: Callable[..., int] = getattr(import_module(f"table.encodings.{module}_kernel"), f"{verb}_{name.replace('-', '_')}")
    return kernel


_U8 = "uint8"
ENCODINGS = {
    e.name: e
    for e in (
        Encoding("float32", "<u4", 32, "float32", "F32", 0x7FFFFFFF, 0x7F800000),
        Encoding("float16", "<u2", 16, "float16", "F16", 0x7FFF, 0x7C00),
        Encoding("bfloat16", "<u2", 16, "uint16", "BF16", 0x7FFF, 0x7F80),
        Encoding("e4m3-e8m0", "u1", 8, _U8, "F8_E4M3", 0x7F, 0x7F, 1, GROUP),
        Encoding("e4m3", "u1", 8, _U8, "F8_E4M3", 0x7F, 0x7F, table_scale=True),
        Encoding("int8", "u1", 8, _U8, None, 0xFF, 0x100, 2),
        Encoding("int4", "u1", 4, _U8, None, 0xFF, 0x100, 2, GROUP),
    )
}

# Encoding of a checkpoint's codes by their safetensors dtype, where no scales stand beside them.
ENCODING_OF = {e.safetensors_dtype: e.name for e in ENCODINGS.values() if e.safetensors_dtype and not e.scale_bytes}


def encoding(name: str) -> Encoding:
    if name not in ENCODINGS:
        raise UsageError(f'no encoding is called "{name}"', hint=f"the names are {', '.join(ENCODINGS)}")
    return ENCODINGS[name]
