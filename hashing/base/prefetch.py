"""Asking for a cache line ahead of its use, from compiled code; a wrong address is harmless.

Processors foresee a few dozen streams of neighbouring addresses, and foresee less for a while after code that jumps about. Code
that reads rows all over a table, or writes to a thousand partitions in turn, waits for memory unless it asks early.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LINE_BYTES = 64
AHEAD_BYTES = 1024  # far enough ahead, for an array read in order
TO_READ, TO_WRITE = 0, 1
ALL_LEVELS, DATA = 3, 1


def request(builder: Any, address: Any, purpose: int) -> None:
    """Builds what asks for the cache line at an address, an int64."""
    word, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
    function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
    numbers = [ir.Constant(word, number) for number in (purpose, ALL_LEVELS, DATA)]
    builder.call(function, [builder.inttoptr(address, pointer), *numbers])


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:
    """Asks for the cache line at an address that will soon be read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        request(builder, arguments[0], TO_READ)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def prefetch_to_write(typing_context: Any, address: Any) -> Any:
    """Asks for the cache line at an address that will soon be written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        request(builder, arguments[0], TO_WRITE)
        return context.get_dummy_value()

    return types.void(types.int64), generate
