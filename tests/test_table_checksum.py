"""Every way to compute CRC-32C against Google's, so that a processor of any kind finds the checksums that another wrote."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from table.store.checksum import BLOCK_BYTES, ZERO_BLOCK, block_checksums
from table.store.checksum_kernel import (
    BLOCK_WORDS,
    FOLDS,
    INSTRUCTION,
    checksum_by_folding,
    checksum_by_words,
    next_by_instruction,
    next_by_table,
    zeros_tables,
)
from tests.commands import ROOT

BLOCKS = 3
has_instruction = pytest.mark.skipif(not INSTRUCTION, reason="this processor has no CRC-32C instruction")
folds = pytest.mark.skipif(not FOLDS, reason="this processor has no 512-bit carry-less multiplication")


@njit(cache=True)
def by_table(words: Any, block: int) -> Any:
    return checksum_by_words(next_by_table, words, block * BLOCK_WORDS)


@njit(cache=True)
def by_instruction(words: Any, block: int) -> Any:
    return checksum_by_words(next_by_instruction, words, block * BLOCK_WORDS)


@njit(cache=True)
def by_folding(words: Any, block: int) -> Any:
    return checksum_by_folding(next_by_instruction, words, block * BLOCK_WORDS)


def contents() -> dict[str, NDArray[np.uint8]]:
    """Blocks of random bytes, of equal ones, and with one bit anywhere."""
    random = np.random.default_rng(0)
    size = BLOCKS * BLOCK_BYTES
    bits = np.zeros((BLOCKS, BLOCK_BYTES), np.uint8)
    bits[np.arange(BLOCKS), random.integers(0, BLOCK_BYTES, BLOCKS)] = 1 << random.integers(0, 8, BLOCKS)
    return {
        "random": random.integers(0, 256, size, np.uint8),
        "zeros": np.zeros(size, np.uint8),
        "ones": np.full(size, 255, np.uint8),
        "one bit": bits.reshape(-1),
    }


def expected(content: NDArray[np.uint8]) -> list[int]:
    return [google_crc32c.value(block.tobytes()) for block in content.reshape(-1, BLOCK_BYTES)]


@pytest.mark.parametrize("content", contents().values(), ids=list(contents()))
@pytest.mark.parametrize(
    "way",
    [
        by_table,
        pytest.param(by_instruction, marks=has_instruction),
        pytest.param(by_folding, marks=folds),
    ],
    ids=["table", "instruction", "folding"],
)
def test_every_way_gives_google_s_checksums(way: Callable[..., int], content: NDArray[np.uint8]) -> None:
    words = content.view("<u8")
    assert [way(words, block) for block in range(BLOCKS)] == expected(content)


@pytest.mark.parametrize("begin", [0, 1, 8, 77])
def test_the_store_s_checksums_are_google_s_wherever_the_bytes_lie(begin: int) -> None:
    memory = np.random.default_rng(begin).integers(0, 256, begin + BLOCKS * BLOCK_BYTES, np.uint8)
    assert block_checksums(memory[begin:]).tolist() == expected(memory[begin:])


def test_no_bytes_have_no_checksums() -> None:
    assert block_checksums(np.empty(0, np.uint8)).tolist() == []
    assert block_checksums(np.zeros(BLOCK_BYTES, np.uint8)).tolist() == [ZERO_BLOCK]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 1000])
def test_zeros_move_a_register_as_they_do_in_google_s(count: int) -> None:
    tables, begin = zeros_tables(count), google_crc32c.value(b"engram")
    register = begin ^ 0xFFFFFFFF
    moved = np.bitwise_xor.reduce([tables[place, register >> 8 * place & 255] for place in range(4)])
    assert int(moved) ^ 0xFFFFFFFF == google_crc32c.extend(begin, bytes(count))


WITHOUT_AVX = """
import numpy as np
from table.store.checksum import BLOCK_BYTES, ZERO_BLOCK, block_checksums
assert block_checksums(np.zeros(BLOCK_BYTES, np.uint8)).tolist() == [ZERO_BLOCK]
"""


def test_vectors_that_numba_may_not_use_are_not_used(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_ENABLE_AVX": "0", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_AVX], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
