"""Tiles of a product: sums that stay in registers from the first term to the last.

Loops over arrays would be turned into vector instructions too, but a compiler puts the sums back into memory every few terms,
since it cannot know that nobody else looks. So the instructions are written down here, for vectors of any length; what the
processor has no vectors for is taken apart by the compiler.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hashing.base.prefetch import LINE_BYTES, TO_READ, request

NUMBER, INDEX = ir.FloatType(), ir.IntType(64)
NUMBER_BYTES = 4


def tile(rows: int, columns: int, panels: int = 1) -> Callable[..., None]:
    """Compiled code that takes `given`, `weights`, `inputs`, `found`, `pitch`, `ahead` and `slowness`, all of them int64.

    It puts sums to the address `found`: of each of `rows` rows as many as `panels` neighbouring panels have columns, `pitch`
    numbers from row to row. The rows' inputs follow one another at `given`, `inputs` of each; a panel of weights has
    `columns` of them for each input, one after another, and is followed by the next. Terms are added in the order of the
    inputs, each by one rounding, whatever a compiler joins. Where there are more rows than one, memory is meanwhile asked for
    the weights at `ahead`, those of one input with every 2^slowness inputs.
    """

    @intrinsic
    def compiled(
        typing_context: Any, given: Any, weights: Any, inputs: Any, found: Any, pitch: Any, ahead: Any, slowness: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
            given, weights, inputs, found, pitch, ahead, slowness = arguments
            line = ir.VectorType(NUMBER, columns)
            fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(line, [line] * 3), f"llvm.fma.v{columns}f32")
            sums = [[cgutils.alloca_once_value(builder, line(None)) for _ in range(panels)] for _ in range(rows)]
            firsts = [builder.mul(inputs, INDEX(panel)) for panel in range(panels)]
            with cgutils.for_range(builder, inputs) as loop:
                places = [builder.mul(builder.add(first, loop.index), INDEX(columns)) for first in firsts]
                if rows > 1:  # of a row alone the weights are all there is to wait for, and a processor foresees them
                    _ask(builder, ahead, builder.mul(builder.lshr(loop.index, slowness), INDEX(columns)), columns)
                own = [builder.load(_at(builder, weights, place, line), align=NUMBER_BYTES) for place in places]
                for row in range(rows):
                    place = builder.add(builder.mul(inputs, INDEX(row)), loop.index)
                    factor = _repeated(builder, builder.load(_at(builder, given, place, NUMBER)), columns)
                    for weight, total in zip(own, sums[row], strict=True):
                        builder.store(builder.call(fma, [factor, weight, builder.load(total)]), total)
            for row in range(rows):
                for panel, total in enumerate(sums[row]):
                    place = builder.add(builder.mul(pitch, INDEX(row)), INDEX(panel * columns))
                    builder.store(builder.load(total), _at(builder, found, place, line), align=NUMBER_BYTES)

        return types.void(*[types.int64] * 7), generate

    return compiled  # type: ignore[no-any-return]


def _ask(builder: Any, address: Any, place: Any, numbers: int) -> None:
    """For so many numbers, which will soon be read, from a place after an address on."""
    first = builder.add(address, builder.mul(place, INDEX(NUMBER_BYTES)))
    for byte in range(0, numbers * NUMBER_BYTES, LINE_BYTES):
        request(builder, builder.add(first, INDEX(byte)), TO_READ)


def _at(builder: Any, address: Any, place: Any, kind: Any) -> Any:
    """The pointer to what begins so many numbers after an address."""
    return builder.inttoptr(builder.add(address, builder.mul(place, INDEX(NUMBER_BYTES))), kind.as_pointer())


def _repeated(builder: Any, number: Any, times: int) -> Any:
    first = builder.insert_element(ir.VectorType(NUMBER, times)(ir.Undefined), number, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.VectorType(ir.IntType(32), times)(None))
