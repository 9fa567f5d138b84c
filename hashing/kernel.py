"""The compiled kernel: rows of a range of positions, one vector instruction per operation for all heads of an order.

All heads of one order share their mix x < 2**63 and differ only in the modulus p, so a CPU vector holds one head per lane.
There is no vector division; the quotient comes from float64. With c = (1 - 2**-51) / p rounded, x as a float64 times c, cut to
an integer, is never above x // p, and below it by less than 1 + 7168 / p: the shrinking and three roundings lose at most 7
parts in 2**53 of a number below 2**63 / p. So with q that integer, x - q·p is in [0, p + 7168). For p ≥ 7168 that is below 2p
and one conditional subtraction ends it; for a smaller p a second round of the same, now exact to the unit, comes first.

Orders, lanes and rounds are compile-time constants. They travel as the lengths of tuples, which are part of the arguments'
types, so that numba's cache on disk tells the variants apart.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

ONE_ROUND_FROM = 7168  # the smallest modulus for which one round suffices
SHRINK = 1 - 2.0**-51


@intrinsic
def _store_rows(  # type: ignore[no-untyped-def]
    _typing, here, recent, multipliers, lanes, rounds, moduli, inverses, offsets, out, position
):
    """out[position + i] = mix mod moduli[i] + offsets[i] for every column i, the mix being that of the column's order."""
    result = types.void(here, recent, multipliers, lanes, rounds, moduli, inverses, offsets, out, position)
    lookback, width, bits = recent.count, lanes.count, out.dtype.bitwidth
    integers, floats = ir.VectorType(ir.IntType(64), width), ir.VectorType(ir.DoubleType(), width)
    stored = ir.VectorType(ir.IntType(bits), width)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        here, recent, multipliers, _, _, *constants, out, position = arguments
        unchanging = builder.module.add_metadata([])

        def address(kind: Any, array: Any, index: Any, vector: ir.VectorType) -> Any:
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        def constant(place: int, column: ir.Constant, vector: ir.VectorType) -> Any:
            loaded = builder.load(address(signature.args[5 + place], constants[place], column, vector))
            loaded.align = 8
            loaded.set_metadata("invariant.load", unchanging)
            return loaded

        def spread(scalar: Any) -> Any:
            undefined = ir.Constant(integers, ir.Undefined)
            first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width))

        def reduced(mix: Any, column: ir.Constant) -> Any:
            modulus, inverse = constant(0, column, integers), constant(1, column, floats)
            remainder = spread(mix)
            for _ in range(rounds.count):
                quotient = builder.fptosi(builder.fmul(builder.sitofp(remainder, floats), inverse), integers)
                remainder = builder.sub(remainder, builder.mul(quotient, modulus))
            # As unsigned numbers: a remainder below the modulus wraps around and is then the smaller one.
            less = builder.sub(remainder, modulus)
            remainder = builder.select(builder.icmp_unsigned("<", remainder, less), remainder, less)
            return builder.add(remainder, constant(2, column, integers))

        mix = builder.mul(here, builder.extract_value(multipliers, 0))
        for distance in range(lookback):
            factor = builder.extract_value(multipliers, distance + 1)
            mix = builder.xor(mix, builder.mul(builder.extract_value(recent, distance), factor))
            column = ir.Constant(ir.IntType(64), distance * width)
            rows = reduced(mix, column)
            rows = rows if bits == 64 else builder.trunc(rows, stored)
            place = address(signature.args[8], out, builder.add(position, column), stored)
            builder.store(rows, place).align = bits // 8
        return context.get_dummy_value()

    return result, generate


@njit(inline="always")
def _pushed(recent, here):  # type: ignore[no-untyped-def]
    return (here,) + recent[:-1]  # noqa: RUF005 - numba does not compile the starred form


@njit(cache=True, nogil=True)
def hash_range(  # type: ignore[no-untyped-def]
    ids, history, starts, pads, boundary, first, last, multipliers, lanes, rounds, moduli, inverses, offsets, out
):
    """Rows of positions first..last of a batch `ids` (B, T) taken end to end, into the flat `out`; gives the largest id seen.

    `history` (B, N-1) precedes each sequence; `starts` (B, T) may be empty. `recent` is what a position reads at distance
    1, 2, …; whatever blocks look-back turns it into pads.
    """
    length, lookback = ids.shape[1], len(pads)
    marked = starts.shape[0] > 0
    largest = np.int64(-1)
    position = first * lookback * len(lanes)
    while first < last:
        row, begin = first // length, first % length
        end = min(length, begin + last - first)
        line = ids[row]
        recent = pads
        if begin < lookback:
            for i in range(lookback):
                recent = _pushed(recent, history[row, i])
        # A range that begins inside a sequence first passes over what it can read.
        for t in range(max(begin - lookback, 0), end):
            here = np.int64(line[t])
            largest = max(largest, here)
            if here < 0 or (marked and starts[row, t]):
                recent = pads
            if t >= begin:
                slot = pads[0] if here < 0 else here
                _store_rows(slot, recent, multipliers, lanes, rounds, moduli, inverses, offsets, out, position)
                position += lookback * len(lanes)
            recent = pads if here < 0 or here == boundary else _pushed(recent, here)
        first += end - begin
    return largest


@njit(cache=True, nogil=True)
def following_history(ids, history, starts, pads, boundary):  # type: ignore[no-untyped-def]
    """(B, N-1) What precedes the piece after `ids` (B, T): pads where look-back is blocked."""
    (batch, length), lookback = ids.shape, len(pads)
    following = np.full((batch, lookback), pads[0], np.int64)
    for row in range(batch):
        for distance in range(1, lookback + 1):
            before = length - distance
            if before < 0:
                following[row, lookback - distance] = history[row, lookback + before]
                continue
            here = ids[row, before]
            if here < 0 or here == boundary:
                break
            following[row, lookback - distance] = here
            if starts.shape[0] > 0 and starts[row, before]:
                break
    return following
