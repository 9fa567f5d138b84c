"""The compiled kernels of addressing: rows of a range of positions, canonical ids of token ids, the history of the next piece.

All heads of one order share their mix x < 2**63 and differ only in the modulus p, so a CPU vector holds one head per lane.
There is no vector division; the quotient comes from float64. With c = (1 - 2**-51) / p rounded, x as a float64 times c, cut to
an integer, is never above x // p, and below it by less than 1 + 7168 / p: the shrinking and three roundings lose at most 7
parts in 2**53 of a number below 2**63 / p. So with q that integer, x - q·p is in [0, p + 7168). For p ≥ 7168 that is below 2p
and one conditional subtraction ends it; for a smaller p a second round of the same, now exact to the unit, comes first.

Orders, lanes and rounds are compile-time constants. They travel as the lengths of tuples, which are part of the arguments'
types, so that numba's cache on disk tells the variants apart. A call costs about 70 ns for each array it is given, which is why
all constants of a layer lie in one.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from hashing.spec import HashSpec

ONE_ROUND_FROM = 7168  # the smallest modulus for which one round suffices
SHRINK = 1 - 2.0**-51


def layer_constants(spec: HashSpec, layer: int) -> NDArray[np.int64]:
    """(N + 3·columns,) The layer's N multipliers, then its columns' moduli, the bits of their inverses, and the offsets."""
    moduli = np.array(spec.moduli(layer), np.int64)
    inverses = (SHRINK / moduli).view(np.int64)
    return np.concatenate([spec.multipliers[spec.layer_index(layer)], moduli, inverses, spec.offsets(layer)], dtype=np.int64)


def reduction_rounds(spec: HashSpec) -> int:
    """How many rounds of the approximate division every modulus of the spec needs."""
    return 1 if min(p for layer in spec.layers for p in spec.moduli(layer)) >= ONE_ROUND_FROM else 2


@intrinsic
def _store_rows(_typing, here, recent, lanes, rounds, constants, layer, out, position):  # type: ignore[no-untyped-def]
    """out[layer, position + i] = mix mod modulus[i] + offset[i] for every column i, the mix being that of its order."""
    result = types.void(here, recent, lanes, rounds, constants, layer, out, position)
    lookback, width, bits = recent.count, lanes.count, out.dtype.bitwidth
    word = ir.IntType(64)
    integers, floats = ir.VectorType(word, width), ir.VectorType(ir.DoubleType(), width)
    stored = ir.VectorType(ir.IntType(bits), width)
    first_modulus, columns = lookback + 1, lookback * width

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        here, recent, _, _, constants, layer, out, position = arguments
        unchanging = builder.module.add_metadata([])

        def line(place: int, array: Any) -> Any:
            """The address of a C-contiguous matrix's row `layer`."""
            held = context.make_array(signature.args[place])(context, builder, array)
            length = builder.extract_value(held.shape, 1)
            return builder.gep(held.data, [builder.mul(layer, length)])

        numbers, rows = line(4, constants), line(6, out)

        def constant(place: int, kind: Any) -> Any:
            address = builder.gep(numbers, [ir.Constant(word, place)])
            loaded = builder.load(builder.bitcast(address, kind.as_pointer()))
            loaded.align = 8
            loaded.set_metadata("invariant.load", unchanging)
            return loaded

        def spread(scalar: Any) -> Any:
            undefined = ir.Constant(integers, ir.Undefined)
            first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width))

        def reduced(mix: Any, column: int) -> Any:
            modulus = constant(first_modulus + column, integers)
            inverse = constant(first_modulus + columns + column, floats)
            remainder = spread(mix)
            for _ in range(rounds.count):
                quotient = builder.fptosi(builder.fmul(builder.sitofp(remainder, floats), inverse), integers)
                remainder = builder.sub(remainder, builder.mul(quotient, modulus))
            # As unsigned numbers: a remainder below the modulus wraps around and is then the smaller one.
            less = builder.sub(remainder, modulus)
            remainder = builder.select(builder.icmp_unsigned("<", remainder, less), remainder, less)
            return builder.add(remainder, constant(first_modulus + 2 * columns + column, integers))

        mix = builder.mul(here, constant(0, word))
        for distance in range(lookback):
            before = builder.extract_value(recent, distance)
            mix = builder.xor(mix, builder.mul(before, constant(distance + 1, word)))
            column = distance * width
            found = reduced(mix, column)
            found = found if bits == 64 else builder.trunc(found, stored)
            place = builder.gep(rows, [builder.add(position, ir.Constant(word, column))])
            builder.store(found, builder.bitcast(place, stored.as_pointer())).align = bits // 8
        return context.get_dummy_value()

    return result, generate


@njit(cache=True, nogil=True)
def translate(mapping, token_ids, out):  # type: ignore[no-untyped-def]
    """out[i] = mapping[token_ids[i]], or an id below 0 as it is; gives the largest id, and stops at one beyond the mapping."""
    largest = np.int64(-1)
    for i, token_id in enumerate(token_ids):
        largest = max(largest, token_id)
        if largest >= len(mapping):
            break
        out[i] = token_id if token_id < 0 else mapping[token_id]
    return largest


@njit(inline="always")
def _pushed(recent, here):  # type: ignore[no-untyped-def]
    return (here,) + recent[:-1]  # noqa: RUF005 - numba does not compile the starred form


@njit(inline="always")
def _after(recent, here, boundary, pads):  # type: ignore[no-untyped-def]
    return pads if here < 0 or here == boundary else _pushed(recent, here)


@njit(inline="always")
def _before(begin, row, ids, history, starts, pads, boundary):  # type: ignore[no-untyped-def]
    """What position `begin` of sequence `row` reads at distance 1, 2, …, were it no start of a segment itself."""
    lookback = len(pads)
    recent = pads
    if begin < lookback and history.shape[0] > 0:
        for i in range(lookback):
            recent = _pushed(recent, history[row, i])
    for t in range(max(begin - lookback, 0), begin):
        if starts.shape[0] > 0 and starts[row, t]:
            recent = pads
        recent = _after(recent, np.int64(ids[row, t]), boundary, pads)
    return recent


@njit(inline="always")
def _survey(line, marks, boundary):  # type: ignore[no-untyped-def]
    """The largest id of a line, and whether anything in it may block look-back."""
    largest, blocks = np.int64(-1), False
    for i in range(len(line)):
        here = np.int64(line[i])
        largest = max(largest, here)
        blocks |= (here < 0) | (here == boundary)
    for i in range(len(marks)):
        blocks |= marks[i]
    return largest, blocks


@njit(cache=True, nogil=True)
def hash_range(  # type: ignore[no-untyped-def]
    ids, history, starts, pads, boundary, first, last, lanes, rounds, constants, out
):
    """Rows of positions first..last of a batch `ids` (B, T) taken end to end, in each layer; gives the largest id seen.

    `constants` (layers, …) has a line of `layer_constants` for each layer and `out` (layers, B·T·columns) one for its rows.
    `history` (B, N-1) precedes each sequence, `starts` (B, T) marks segments; either may be empty. `recent` is what a position
    reads at distance 1, 2, …; whatever blocks look-back turns it into pads. Lines in which nothing does, which are most, have a
    loop of their own: a quarter less work, and as fast as memory takes the rows.
    """
    length, columns = ids.shape[1], len(pads) * len(lanes)
    flat, flat_starts = ids.reshape(-1), starts.reshape(-1)
    largest = np.int64(-1)
    place = first
    while place < last:
        row, begin = place // length, place % length
        end = min(length, begin + last - place)
        line, marks = flat[place : place + end - begin], flat_starts[place : place + end - begin]
        before = _before(begin, row, ids, history, starts, pads, boundary)
        seen, blocks = _survey(line, marks, boundary)
        largest = max(largest, seen)
        for layer in range(len(constants)):
            recent = before
            if blocks:
                for i in range(len(line)):
                    here = np.int64(line[i])
                    if here < 0 or (len(marks) > 0 and marks[i]):
                        recent = pads
                    slot = pads[0] if here < 0 else here
                    _store_rows(slot, recent, lanes, rounds, constants, layer, out, (place + i) * columns)
                    recent = _after(recent, here, boundary, pads)
            else:
                for i in range(len(line)):
                    here = np.int64(line[i])
                    _store_rows(here, recent, lanes, rounds, constants, layer, out, (place + i) * columns)
                    recent = _pushed(recent, here)
        place += end - begin
    return largest


@njit(cache=True, nogil=True)
def following_history(ids, history, starts, pads, boundary):  # type: ignore[no-untyped-def]
    """(B, N-1) What precedes the piece after `ids` (B, T), pads where look-back is blocked; the other arrays may be empty."""
    (batch, length), lookback = ids.shape, len(pads)
    following = np.full((batch, lookback), pads[0], np.int64)
    for row in range(batch):
        for distance in range(1, lookback + 1):
            before = length - distance
            if before < 0:
                following[row, lookback - distance] = history[row, lookback + before] if len(history) else pads[0]
                continue
            here = ids[row, before]
            if here < 0 or here == boundary:
                break
            following[row, lookback - distance] = here
            if starts.shape[0] > 0 and starts[row, before]:
                break
    return following
