"""The compiled kernel: rows of a range of positions, one vector instruction per operation for all heads of an order.

All heads of one order share their mix x < 2**63 and differ only in the modulus p, so a CPU vector holds one head per lane.
There is no vector division; the quotient comes from float64. With c = (1 - 2**-51) / p rounded, x as a float64 times c, cut to
an integer, is never above x // p, and below it by less than 1 + 7168 / p: the shrinking and three roundings lose at most 7
parts in 2**53 of a number below 2**63 / p. So with q that integer, x - q·p is in [0, p + 7168). For p ≥ 7168 that is below 2p
and one conditional subtraction ends it; for a smaller p a second round of the same, now exact to the unit, comes first.

The number of lanes and of rounds are compile-time constants. They travel as the lengths of two tuples, which are part of the
arguments' types, so that numba's cache on disk tells the variants apart.
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
    _typing, lanes, rounds, mix, moduli, inverses, offsets, column, out, position
):
    """out[position + i] = mix mod moduli[column + i] + offsets[column + i], for i up to the number of lanes."""
    result = types.void(lanes, rounds, mix, moduli, inverses, offsets, column, out, position)
    number, width, item = out.dtype.bitwidth, lanes.count, out.dtype.bitwidth // 8
    integers, floats = ir.VectorType(ir.IntType(64), width), ir.VectorType(ir.DoubleType(), width)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        _, _, mix, *constants, column, out, position = arguments

        def address(kind: Any, array: Any, index: Any, vector: ir.VectorType) -> Any:
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        def constant(place: int, vector: ir.VectorType) -> Any:
            loaded = builder.load(address(signature.args[3 + place], constants[place], column, vector))
            loaded.align = 8
            return loaded

        def spread(scalar: Any, vector: ir.VectorType) -> Any:
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width))

        modulus, inverse, offset = constant(0, integers), constant(1, floats), constant(2, integers)
        remainder = spread(mix, integers)
        # The mix is the same in all lanes: converted once, before it is spread.
        approximate = spread(builder.sitofp(mix, ir.DoubleType()), floats)
        for further in range(rounds.count):
            if further:
                approximate = builder.sitofp(remainder, floats)
            quotient = builder.fptosi(builder.fmul(approximate, inverse), integers)
            remainder = builder.sub(remainder, builder.mul(quotient, modulus))
        # As unsigned numbers: a remainder below the modulus wraps around and is then the smaller one.
        less = builder.sub(remainder, modulus)
        remainder = builder.select(builder.icmp_unsigned("<", remainder, less), remainder, less)
        stored = ir.VectorType(ir.IntType(number), width)
        row = builder.add(remainder, offset)
        row = row if number == 64 else builder.trunc(row, stored)
        builder.store(row, address(signature.args[7], out, position, stored)).align = item
        return context.get_dummy_value()

    return result, generate


@njit(cache=True, nogil=True)
def hash_range(  # type: ignore[no-untyped-def]
    ids, history, starts, pad, boundary, first, last, multipliers, lanes, rounds, moduli, inverses, offsets, out
):
    """Rows of positions first..last of a batch `ids` (B, T) taken end to end, into the flat `out`; gives the largest id seen.

    `history` (B, N-1) precedes each sequence; `starts` (B, T) may be empty. Every rule that blocks look-back becomes one
    number, the *reach*: how many ids before a position it may read.
    """
    length, lookback = ids.shape[1], history.shape[1]
    marked = starts.shape[0] > 0
    largest = np.int64(-1)
    position = first * lookback * len(lanes)
    while first < last:
        row, begin = first // length, first % length
        end = min(length, begin + last - first)
        # A range that begins inside a sequence finds its reach by passing over what it can reach.
        t = max(begin - lookback, 0)
        reach = lookback if t == 0 else 0
        while t < end:
            here = ids[row, t]
            largest = max(largest, here)
            if here < 0 or (marked and starts[row, t]):
                reach = 0
            if t >= begin:
                mix = np.uint64(pad if here < 0 else here) * multipliers[0]
                column = 0
                for distance in range(1, lookback + 1):
                    before = t - distance
                    slot = np.int64(pad)
                    if distance <= reach:
                        slot = np.int64(ids[row, before]) if before >= 0 else history[row, lookback + before]
                    mix ^= np.uint64(slot) * multipliers[distance]
                    _store_rows(lanes, rounds, np.int64(mix), moduli, inverses, offsets, column, out, position)
                    column += len(lanes)
                    position += len(lanes)
            reach = 0 if here < 0 or here == boundary else min(reach + 1, lookback)
            t += 1
        first += end - begin
    return largest


@njit(cache=True, nogil=True)
def following_history(ids, history, starts, pad, boundary):  # type: ignore[no-untyped-def]
    """(B, N-1) What precedes the piece after `ids` (B, T): pads where look-back is blocked."""
    (batch, length), lookback = ids.shape, history.shape[1]
    following = np.full((batch, lookback), pad, np.int64)
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
