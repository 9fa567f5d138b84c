"""Folding: bytes are made shorter, and keep their CRC-32C, by carry-less multiplication of whole vectors (x86 with AVX-512).

Bytes are a polynomial over bits, and a CRC is its remainder modulo the polynomial of Castagnoli. Bytes that stand
`FOLDED_BYTES` before others count for them times x^(8 · FOLDED_BYTES), which may be replaced by its remainder: a 64-bit
number times a constant of 32 bits, added to the bytes there. Four vectors of 64 bytes take turns, so that none waits for the
one before.

The bits of a CRC-32C are reversed: bit 0 of a byte is its highest power. A carry-less product of reversed numbers stands one
place too low, so constants are of one power of x less.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

FEATURES = ("avx512f", "vpclmulqdq")  # of the processor
VECTOR_BYTES, VECTORS = 64, 4
FOLDED_BYTES = VECTORS * VECTOR_BYTES
CASTAGNOLI = 0x11EDC6F41  # highest power first

_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(_WORD, 8)


def _remainder(power: int) -> int:
    """x^power modulo the polynomial, as the upper half of a reversed 64-bit number."""
    value = 1
    for _ in range(power):
        value <<= 1
        value ^= CASTAGNOLI if value >> 32 else 0
    return int(f"{value:032b}"[::-1], 2) << 32


def _vector(*words: int) -> ir.Constant:
    return ir.Constant(_VECTOR, [ir.Constant(_WORD, word) for word in words])


def _at(builder: Any, address: Any, offset: int) -> Any:
    return builder.inttoptr(builder.add(address, ir.Constant(_WORD, offset)), _VECTOR.as_pointer())


@intrinsic
def fold(typing_context: Any, source: Any, size: Any, target: Any) -> Any:
    """Folds `size` bytes at the address `source`, a multiple of FOLDED_BYTES, into FOLDED_BYTES at `target`.

    The first four bytes are inverted, as a CRC-32C begins: its register, begun with 0, is then that of the bytes folded.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin, length, folded = arguments
        multiply = builder.module.declare_intrinsic(
            "llvm.x86.pclmulqdq.512", (), ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, ir.IntType(8)])
        )
        factors = _vector(*(_remainder(8 * FOLDED_BYTES + 63), _remainder(8 * FOLDED_BYTES - 1)) * 4)
        lower, upper = ir.Constant(ir.IntType(8), 0x00), ir.Constant(ir.IntType(8), 0x11)
        sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(VECTORS)]
        for place, total in enumerate(sums):
            first = builder.load(_at(builder, begin, place * VECTOR_BYTES), align=1)
            builder.store(builder.xor(first, _vector(0 if place else 0xFFFFFFFF, *[0] * 7)), total)
        step = ir.Constant(_WORD, FOLDED_BYTES)
        with cgutils.for_range_slice(builder, step, length, step, _WORD) as (offset, _):
            here = builder.add(begin, offset)
            for place, total in enumerate(sums):
                value = builder.load(total)
                products = (builder.call(multiply, [value, factors, half]) for half in (lower, upper))
                following = builder.load(_at(builder, here, place * VECTOR_BYTES), align=1)
                builder.store(builder.xor(builder.xor(*products), following), total)
        for place, total in enumerate(sums):
            builder.store(builder.load(total), _at(builder, folded, place * VECTOR_BYTES), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate
