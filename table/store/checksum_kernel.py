"""CRC-32C compiled, without the GIL, in the fastest of three ways that the processor has.

By folding (`folding.py`): a block is first made as short as 256 bytes; x86 with AVX-512, 62 GB/s a thread where the next has
33.

By words: an instruction (SSE 4.2, or ARM's CRC extension) takes eight bytes. It gives a result after three cycles but takes a
word in every cycle, so a block is cut into three parts that advance together. A CRC is linear: the parts' registers are
joined by moving one over as many bytes of zeros as the next part has, a multiplication by a constant matrix of bits, looked
up byte by byte.

By table: eight look-ups in place of that instruction ("slicing by 8"), 6 GB/s, on whatever else there is.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic
from numpy.typing import NDArray

from table.store.checksum import BLOCK_BYTES
from table.store.folding import FEATURES, FOLDED_BYTES, fold

POLYNOMIAL = 0x82F63B78  # of Castagnoli, bits reversed
BLOCK_WORDS = BLOCK_BYTES // 8
PART_WORDS = BLOCK_WORDS // 3
ONES = np.uint32(0xFFFFFFFF)

X86, ARM = ("sse4.2", "llvm.x86.sse42.crc32.64.64", 64), ("crc", "llvm.aarch64.crc32cx", 32)  # feature, function, register bits

Matrix = list[int]  # of bits, by columns: what each bit of a register becomes


def _times(matrix: Matrix, register: int) -> int:
    result = 0
    for bit, column in enumerate(matrix):
        result ^= column if register >> bit & 1 else 0
    return result


def zeros_tables(count: int) -> NDArray[np.uint32]:
    """(4, 256) What each byte of a register becomes when `count` bytes of zeros pass; the register's is the xor of the four."""
    step = [POLYNOMIAL, *(1 << bit for bit in range(31))]  # one bit of zero
    matrix = [1 << bit for bit in range(32)]
    for power in range((8 * count).bit_length()):
        if 8 * count >> power & 1:
            matrix = [_times(step, column) for column in matrix]
        step = [_times(step, column) for column in step]
    return np.array([[_times(matrix, byte << 8 * place) for byte in range(256)] for place in range(4)], np.uint32)


def _features() -> set[str]:
    """The features of the processor that numba compiles for: this one's, less those that the environment takes away.

    Code that uses another ends the process while it is compiled.
    """
    found = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return {feature[1:] for feature in found.split(",") if feature.startswith("+")}


def _instruction() -> tuple[str, int] | None:
    """The name and register size of the CRC-32C of a word; None where there is none."""
    machine = binding.get_process_triple().partition("-")[0]
    feature, name, bits = ARM if machine in {"aarch64", "arm64"} else X86
    return (name, bits) if machine in {"x86_64", "aarch64", "arm64"} and feature in _features() else None


INSTRUCTION = _instruction()
FOLDS = INSTRUCTION is not None and set(FEATURES) <= _features()


@intrinsic
def next_by_instruction(typing_context: Any, register: Any, word: Any) -> Any:
    """The register after eight more bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        assert INSTRUCTION is not None
        name, bits = INSTRUCTION
        size, wide = ir.IntType(bits), ir.IntType(64)
        function = builder.module.declare_intrinsic(name, (), ir.FunctionType(size, [size, wide]))
        if bits == 64:
            return builder.call(function, arguments)
        return builder.zext(builder.call(function, [builder.trunc(arguments[0], size), arguments[1]]), wide)

    return types.uint64(types.uint64, types.uint64), generate


BYTES_AHEAD = np.concatenate([zeros_tables(8), zeros_tables(4)])  # (8, 256) what each byte of a word adds, by its place


@njit(inline="always")
def next_by_table(register, word):  # type: ignore[no-untyped-def]
    """The register after eight more bytes, by eight look-ups."""
    mixed = np.uint64(register) ^ np.uint64(word)
    result = np.uint32(0)
    for place in range(8):
        result ^= BYTES_AHEAD[place, (mixed >> np.uint64(8 * place)) & np.uint64(255)]
    return np.uint64(result)


next_register = next_by_instruction if INSTRUCTION else next_by_table
PART_AHEAD = zeros_tables(8 * PART_WORDS)


@njit(inline="always")
def _past_a_part(register):  # type: ignore[no-untyped-def]
    """The register after as many bytes of zeros as a part has."""
    result = np.uint32(0)
    for place in range(4):
        result ^= PART_AHEAD[place, (register >> np.uint64(8 * place)) & np.uint64(255)]
    return np.uint64(result)


@njit(inline="always")
def checksum_by_words(advance, words, first):  # type: ignore[no-untyped-def]
    """CRC-32C of the block of 64-bit `words` that begins at `first`; `advance` gives the register after a word."""
    one, two, three = np.uint64(ONES), np.uint64(0), np.uint64(0)
    for i in range(first, first + PART_WORDS):
        one = advance(one, words[i])
        two = advance(two, words[i + PART_WORDS])
        three = advance(three, words[i + 2 * PART_WORDS])
    register = _past_a_part(_past_a_part(one) ^ two) ^ three
    for i in range(first + 3 * PART_WORDS, first + BLOCK_WORDS):
        register = advance(register, words[i])
    return np.uint32(register) ^ ONES


@njit(inline="always")
def checksum_by_folding(advance, words, first):  # type: ignore[no-untyped-def]
    """The same, `advance` being used for what is left."""
    left = np.empty(FOLDED_BYTES // 8, np.uint64)
    fold(words.ctypes.data + 8 * first, BLOCK_BYTES, left.ctypes.data)
    register = np.uint64(0)
    for i in range(left.shape[0]):
        register = advance(register, left[i])
    return np.uint32(register) ^ ONES


_checksum = checksum_by_folding if FOLDS else checksum_by_words


@njit(cache=True, nogil=True)
def block_checksum(words, block):  # type: ignore[no-untyped-def]
    """CRC-32C of a block of little-endian 64-bit `words` (blocks · BLOCK_WORDS,)."""
    return _checksum(next_register, words, block * BLOCK_WORDS)


@njit(cache=True, nogil=True)
def checksum_blocks(words, sums):  # type: ignore[no-untyped-def]
    """Fills `sums` (blocks,) uint32 with the CRC-32C of each block of `words`."""
    for block in range(sums.shape[0]):
        sums[block] = block_checksum(words, block)
