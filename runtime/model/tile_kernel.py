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

NUMBER, INDEX = ir.FloatType(), ir.IntType(64)
NUMBER_BYTES = 4


def tile(rows: int, columns: int, pitch: int) -> Callable[..., None]:
    """Compiled code that takes `given`, `weights`, `inputs` and `found`, all of them int64.

    It puts `columns` neighbouring sums of each of `rows` rows to the address `found`. The rows' inputs follow one another at
    `given`, `inputs` of each; a line of `weights`, and of sums, begins `pitch` numbers after the line before. Terms are added
    in the order of the inputs, each by one rounding, whatever a compiler joins.
    """

    @intrinsic
    def compiled(typing_context: Any, given: Any, weights: Any, inputs: Any, found: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
            given, weights, inputs, found = arguments
            line = ir.VectorType(NUMBER, columns)
            fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(line, [line] * 3), f"llvm.fma.v{columns}f32")
            sums = [cgutils.alloca_once_value(builder, line(None)) for _ in range(rows)]
            with cgutils.for_range(builder, inputs) as loop:
                own = builder.load(_at(builder, weights, builder.mul(loop.index, INDEX(pitch)), line), align=NUMBER_BYTES)
                for row, total in enumerate(sums):
                    place = builder.add(builder.mul(inputs, INDEX(row)), loop.index)
                    factor = _repeated(builder, builder.load(_at(builder, given, place, NUMBER)), columns)
                    builder.store(builder.call(fma, [factor, own, builder.load(total)]), total)
            for row, total in enumerate(sums):
                builder.store(builder.load(total), _at(builder, found, INDEX(row * pitch), line), align=NUMBER_BYTES)

        return types.void(types.int64, types.int64, types.int64, types.int64), generate

    return compiled  # type: ignore[no-any-return]


def _at(builder: Any, address: Any, place: Any, kind: Any) -> Any:
    """The pointer to what begins so many numbers after an address."""
    return builder.inttoptr(builder.add(address, builder.mul(place, INDEX(NUMBER_BYTES))), kind.as_pointer())


def _repeated(builder: Any, number: Any, times: int) -> Any:
    first = builder.insert_element(ir.VectorType(NUMBER, times)(ir.Undefined), number, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.VectorType(ir.IntType(32), times)(None))
