"""Rows of products and of attention that two cores share, compiled.

What passes between the cores are words of 64 bits at one address. The core that has a step to compute *offers* the second half
of a function's rows: it writes down the function and what it takes, then a new number as CLAIM and as OFFER. It computes the
first half and then *settles*: whoever puts another value in the place of CLAIM computes the second half, once. So the offering
core never waits for a helper that is late or not there, only for one that is at it.
"""

import os
import platform
from typing import Any

from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from runtime.model.product_kernel import ROWS, product
from runtime.model.step_kernel import longs, place_rows, read_rows
from runtime.model.tile_kernel import NUMBER_BYTES

OFFER, CLAIM, DONE, FUNCTION = 0, 16, 32, 48  # words, in pairs of cache lines of their own; a function's arguments follow it
WORDS = FUNCTION + 16
WORD_BYTES = 8
PRODUCT, ATTENTION = 0, 1

ON_X86 = platform.machine() in ("x86_64", "AMD64")
HAS_YIELD = hasattr(os, "sched_yield")
LOOKS = 256  # for a word to change, before another thread may have the core

_word = ir.IntType(64)


@intrinsic
def _read(typing_context: Any, address: Any) -> Any:
    """The word at an address, after whatever was written before it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _word.as_pointer()), "seq_cst", WORD_BYTES)

    return types.int64(types.int64), generate


@intrinsic
def _write(typing_context: Any, address: Any, value: Any) -> Any:
    """Writes the word at an address, after whatever was written before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, value = arguments
        builder.store_atomic(value, builder.inttoptr(address, _word.as_pointer()), "seq_cst", WORD_BYTES)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _exchanged(typing_context: Any, address: Any, old: Any, new: Any) -> Any:
    """1 where the word at an address was `old` and is `new` now, else 0: of two cores that try, one succeeds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, old, new = arguments
        result = builder.cmpxchg(builder.inttoptr(address, _word.as_pointer()), old, new, "seq_cst", "seq_cst")
        return builder.zext(builder.extract_value(result, 1), _word)

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def _x86_pause(typing_context: Any) -> Any:
    """Tells the core that it waits in a loop, which then looks 20 to 50 million times a second."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate


@njit(forceinline=True)
def _nothing():  # type: ignore[no-untyped-def]
    pass


_pause = _x86_pause if ON_X86 else _nothing
_yield = types.ExternalFunction("sched_yield", types.int32()) if HAS_YIELD else _nothing


@njit(forceinline=True)
def _rest(looks):  # type: ignore[no-untyped-def]
    if looks % LOOKS == 0:
        _yield()
    else:
        _pause()


@njit(forceinline=True)
def _at(words, word):  # type: ignore[no-untyped-def]
    return words + WORD_BYTES * word


@njit(cache=True, nogil=True, error_model="numpy")
def _compute(words):  # type: ignore[no-untyped-def]
    """What is offered."""
    a = carray(longs(_at(words, FUNCTION)), WORDS - FUNCTION)
    if a[0] == PRODUCT:
        product(a[1], a[2], a[3], (a[4], a[5], a[6]), 0, a[7])
    else:
        read_rows((a[1], a[2], a[3], a[4], a[5]), (a[6], a[7], a[8], a[9]), a[10], a[11], a[12], a[13])


@njit(forceinline=True)
def _offer(words):  # type: ignore[no-untyped-def]
    """The offer's number."""
    number = _read(_at(words, OFFER)) + 1
    _write(_at(words, CLAIM), number)
    _write(_at(words, OFFER), number)
    return number


@njit(forceinline=True)
def _settle(words, number):  # type: ignore[no-untyped-def]
    """Returns when the offer is computed, by a helper or else here."""
    if _exchanged(_at(words, CLAIM), number, -number):
        _compute(words)
        return
    looks = 0
    while _read(_at(words, DONE)) != number:
        looks += 1
        _rest(looks)


@njit(cache=True, nogil=True, error_model="numpy")
def help_with(words, patience):  # type: ignore[no-untyped-def]
    """Takes what is offered, until it has looked `patience` times and found nothing new."""
    seen, looks = _read(_at(words, OFFER)), 0
    while looks < patience:
        number = _read(_at(words, OFFER))
        if number == seen:
            looks += 1
            _rest(looks)
            continue
        seen, looks = number, 0
        if _exchanged(_at(words, CLAIM), number, -number):
            _compute(words)
            _write(_at(words, DONE), number)


@njit(forceinline=True)
def _own(rows):  # type: ignore[no-untyped-def]
    """How many of the rows are not offered: half of them, in whole groups of those that a product takes together."""
    return min(rows, (rows + 2 * ROWS - 1) // (2 * ROWS) * ROWS)


@njit(cache=True, nogil=True, error_model="numpy")
def multiply(words, given, panels, found, shape, parts):  # type: ignore[no-untyped-def]
    """`product` of all outputs, shared with whoever helps at the address `words`; 0: with nobody."""
    rows, inputs, outputs = shape
    own, number = _own(rows) if words != 0 else rows, 0
    if own < rows:
        a = carray(longs(_at(words, FUNCTION)), WORDS - FUNCTION)
        a[0], a[1], a[2] = PRODUCT, given + NUMBER_BYTES * own * inputs, panels
        a[3], a[4], a[5], a[6], a[7] = found + NUMBER_BYTES * own * outputs, rows - own, inputs, outputs, parts
        number = _offer(words)
    product(given, panels, found, (own, inputs, outputs), 0, parts)
    if own < rows:
        _settle(words, number)


@njit(cache=True, nogil=True, error_model="numpy")
def attend(words, shape, places, qkv, gains, eps, rotations, keys, values, out):  # type: ignore[no-untyped-def]
    """Fills `out` (N, heads, width) with causal attention for a batch's rows, whose keys and values go to their pages.

    `qkv` (N, heads + 2 · key heads, width) is what was projected; queries and keys in it are normalised, where `gains`
    (2, width) are given, and rotated. `places` has the batch's owners, positions and tables, `rotations` the addresses of the
    tables of `Rotary`. Each row is computed by itself, in the order of positions: its numbers do not depend on the batch.
    Reading is shared with whoever helps at the address `words`; 0: with nobody.
    """
    rows, heads, key_heads, width, pages, _, _ = shape
    owners, positions, tables = places
    place_rows(shape, places, qkv, gains, eps, rotations, keys, values)
    own, number = _own(rows) if words != 0 else rows, 0
    owners_at, positions_at, tables_at = owners.ctypes.data, positions.ctypes.data, tables.ctypes.data
    if own < rows:
        a = carray(longs(_at(words, FUNCTION)), WORDS - FUNCTION)
        a[0], a[1], a[2], a[3], a[4], a[5] = ATTENTION, rows - own, heads, key_heads, width, pages
        a[6], a[7], a[8], a[9] = owners_at + WORD_BYTES * own, positions_at + WORD_BYTES * own, tables_at, tables.shape[1]
        a[10], a[11], a[12] = qkv + NUMBER_BYTES * own * (heads + 2 * key_heads) * width, keys, values
        a[13] = out + NUMBER_BYTES * own * heads * width
        number = _offer(words)
    lists = owners_at, positions_at, tables_at, tables.shape[1]
    read_rows((own, heads, key_heads, width, pages), lists, qkv, keys, values, out)
    if own < rows:
        _settle(words, number)
