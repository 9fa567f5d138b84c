"""Sizes as people type them."""

import re

from hashing.base.errors import UsageError

LARGEST = 2.0**62
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str) -> int:
    """The bytes that a text like "1GiB", "500 MB" or "4096" names. Raises UsageError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if not match or match[2] not in UNITS:
        raise UsageError(f'"{text}" is not a size', hint="sizes are written like 512MiB, 2GiB or 4096")
    size = float(match[1]) * UNITS[match[2]]
    if size > LARGEST:
        raise UsageError(f'"{text}" is larger than any memory or drive')
    return int(size)
