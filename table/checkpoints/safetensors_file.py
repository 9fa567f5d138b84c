"""Safetensors headers, validated completely before a byte of data is touched.

A file is 8 bytes (little-endian length of the header), the header (a JSON object: name → dtype, shape, data_offsets relative to
the end of the header), then the tensors end to end without holes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from hashing.base.errors import EngramError
from hashing.base.json_object import INT64_MAX, brief, parse_json
from hashing.base.regular_file import regular_size

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_RANK = 64
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
    size = regular_size(path)
    limit = max(0, min(MAX_HEADER_BYTES, size - 8))
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > limit:
            raise EngramError(
                f"{path} is not a safetensors file: its header would be {length:,} bytes long, of {limit:,} at most"
            )
        content = file.read(length)
    return parse_header(path, content, size)


def parse_header(path: Path, content: bytes, size: int | None) -> SafetensorsFile:
    """The header of a file of `size` bytes, None where that is what it says; `path` is for messages."""
    header = parse_json(content, f"{path} is not a safetensors file: its header").members
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
    fields = [entry.get(key) for key in ("dtype", "shape", "data_offsets")] if isinstance(entry, dict) else [None] * 3
    dtype, shape, offsets = fields
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2):
        raise EngramError(f"{path}: {brief(name)} has no dtype, shape and two data offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise EngramError(f"{path}: {brief(name)} is of dtype {brief(dtype)}, which is not known")
    if len(shape) > MAX_RANK:
        raise EngramError(f"{path}: {brief(name)} has {len(shape)} dimensions, expected {MAX_RANK} at most")
    if not all(type(n) is int and 0 <= n <= INT64_MAX for n in (*shape, *offsets)):
        raise EngramError(f"{path}: {brief(name)} has a shape or offsets that are no whole numbers of 64 bits")
    begin, end = offsets
    if (expected := -(-prod(shape) * BITS[dtype] // 8)) != end - begin:
        raise EngramError(f"{path}: {name} has {end - begin:,} bytes, but {dtype} {brief(shape)} are {expected:,}")
    return Tensor(name, dtype, tuple(shape), data_begin + begin, data_begin + end)
