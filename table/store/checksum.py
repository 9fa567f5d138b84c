"""CRC-32C (Castagnoli, as in Zarr's own `crc32c` codec) of every 64 KiB block of a shard.

A CRC is linear: the difference between the checksum kept and the one found depends on the damage alone. For a single flipped
bit it differs for every place in a block, so the bit's place follows from the two checksums.
"""

import google_crc32c
import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 16  # of a shard that share a checksum
Checksums = NDArray[np.uint32]  # (blocks,)


def crc32c(data: bytes) -> int:
    return int(google_crc32c.value(data))


def extend_crc32c(crc: int, data: bytes) -> int:
    """The checksum of what `crc` is of, followed by `data`."""
    return int(google_crc32c.extend(crc, data))


CRC_TEXT = "[0-9a-f]{8}"  # the form of a checksum in a manifest


def crc_text(data: bytes) -> str:
    return f"{crc32c(data):08x}"


def block_checksums(data: NDArray[np.uint8]) -> Checksums:
    """One checksum per block of contiguous bytes that are a whole number of blocks."""
    from table.store.checksum_kernel import checksum_blocks  # here: whoever only reads a manifest needs nothing compiled

    sums = np.empty(len(data) // BLOCK_BYTES, np.uint32)
    checksum_blocks(data.view("<u8"), sums)
    return sums


ZERO_BLOCK = crc32c(bytes(BLOCK_BYTES))


def flipped_byte(kept: int, found: int, length: int) -> int | None:
    """Where in `length` bytes the one bit is whose flip turned checksum `kept` into `found`; None: more than one differs.

    The difference that a bit makes at the end of the block is stepped back byte by byte until it is that of a single bit.
    """
    from table.store.checksum_kernel import zeros_tables

    table = zeros_tables(1)[0].tolist()  # what a byte in the lowest place becomes when a byte passes
    index_of_top = {entry >> 24: index for index, entry in enumerate(table)}
    ends = {table[1 << bit] for bit in range(8)}
    difference = kept ^ found
    for position in range(length - 1, -1, -1):
        if difference in ends:
            return position
        index = index_of_top[difference >> 24]
        difference = ((difference ^ table[index]) << 8 & 0xFFFFFFFF) | index
    return None
