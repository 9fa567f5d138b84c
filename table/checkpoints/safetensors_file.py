"""Safetensors headers, validated completely before a byte of data is touched.

A file is 8 bytes (little-endian length of the header), the header (a JSON object: name → dtype, shape, data_offsets relative to
the end of the header), then the tensors end to end without holes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from hashing.base.errors import EngramError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor's bytes are in its file: begin ≤ offset < end, counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    path: Path
    size: int
    data_begin: int
    tensors: Mapping[str, Tensor]  # in the order of their bytes

    def read(self, name: str) -> bytes:
        """A small tensor's bytes."""
        tensor = self.tensors[name]
        with self.path.open("rb") as file:
            file.seek(tensor.begin)
            return file.read(tensor.end - tensor.begin)


def read_header(path: Path) -> SafetensorsFile:
    """Raises EngramError for every way in which a header can be wrong."""
    try:
        if path.exists() and not path.is_file():
            raise EngramError(f"{path} is no file")
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                limit = max(0, min(MAX_HEADER_BYTES, size - 8))
                raise EngramError(
                    f"{path} is not a safetensors file: its header would be {length:,} bytes long, of {limit:,} at most"
                )
            content = file.read(length)
    except FileNotFoundError as e:
        raise EngramError(f"no such file: {path}") from e
    return parse_header(path, content, size)


def parse_header(path: Path, content: bytes, size: int | None) -> SafetensorsFile:
    """The header of a file of `size` bytes, None where that is what it says; `path` is for messages."""
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as e:
        raise EngramError(f"{path} is not a safetensors file: its header is not JSON ({e})") from e
    if not isinstance(header, dict):
        raise EngramError(f"{path} is not a safetensors file: its header is no object")
    begin = 8 + len(content)
    entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    tensors = sorted((_tensor(path, name, entry, begin) for name, entry in entries), key=lambda t: (t.begin, t.end))
    end = begin
    for tensor in tensors:
        if tensor.begin != end:
            what = "overlaps the tensor before it" if tensor.begin < end else "leaves a hole before it"
            raise EngramError(f"{path}: {tensor.name} {what}; it begins at byte {tensor.begin:,}, expected {end:,}")
        end = tensor.end
    if size is not None and end != size:
        what = "is truncated" if size < end else "has bytes after its last tensor"
        raise EngramError(f"{path} {what}: {size:,} bytes, expected {end:,}")
    return SafetensorsFile(path, end, begin, {tensor.name: tensor for tensor in tensors})


def _tensor(path: Path, name: str, entry: Any, data_begin: int) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as e:
        raise EngramError(f"{path}: {name} has no dtype, shape and two data offsets") from e
    if not isinstance(dtype, str) or dtype not in BITS:
        raise EngramError(f"{path}: {name} is of dtype {dtype!r}, which is not known")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise EngramError(f"{path}: {name} has a shape or offsets that are no whole numbers")
    if (expected := -(-prod(shape) * BITS[dtype] // 8)) != end - begin:
        raise EngramError(f"{path}: {name} has {end - begin:,} bytes, but {dtype} {list(shape)} are {expected:,}")
    return Tensor(name, dtype, shape, data_begin + begin, data_begin + end)
