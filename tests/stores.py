"""Stores at toy size: a spec for their tables, and changes that somebody might make to their files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hashing.spec import HashSpec, seeded_multipliers
from table.store.checksum import crc_text
from table.store.zarr_metadata import canonical_json


def spec_of_heads(rows: tuple[int, ...]) -> HashSpec:
    """One layer, 1; `rows` are those of its heads, primes, the first half for 2-grams and the rest for 3-grams."""
    half = len(rows) // 2
    return HashSpec(
        layers=(1,),
        primes=((rows[:half], rows[half:]),),
        multipliers=seeded_multipliers("numpy", 0, (1,), 3, 100),
        pad_id=2,
        canonical_size=100,
        vocab_fingerprint="of-a-test",
    )


def forge(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest and makes its checksum right again."""
    content = json.loads((store / "zarr.json").read_text())
    manifest = content["attributes"]["engram"]
    del manifest["crc32c"]
    change(manifest)
    manifest["crc32c"] = crc_text(canonical_json(manifest))
    (store / "zarr.json").write_text(json.dumps(content, sort_keys=True, separators=(",", ":")))


def flip(path: Path, position: int, bit: int) -> None:
    """Flips a bit of the byte at a position of a file."""
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))
