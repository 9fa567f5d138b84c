"""The manifest of a store, and where everything in it lies. This module is the format's specification: one Zarr v3 group,

    tables.zarr/
      zarr.json                  group; attributes "engram": the manifest, see below
      canonical/                 int32 (tokens,), one chunk: token id → canonical id; absent where no tokenizer was known
      layers/<block>/            the layer's table, one record per row (`table/encodings/`), chunks of shard_rows rows:
                                 float32 and float16 (rows, head_dim); bfloat16 as uint16 (rows, head_dim); others uint8
                                 (rows, row_bytes)
        c/<i>/0                  shard i: rows i·shard_rows … (i+1)·shard_rows - 1, raw and row-major, zeros after the last row
      checksums/<block>/         uint32 (shards, blocks), one chunk a shard: CRC-32C of every 64 KiB of it
      origin/<k>/                uint8 (bytes,), one chunk: a file of the checkpoint that the tables came from, with the tables'
                                 own bytes cut out; what `table/checkpoints/exporter.py` needs to give back the same bytes

All arrays are uncompressed and little-endian. A shard is one chunk and one file, so any Zarr reader opens it and we map it: its
size is a whole number of rows and of 64 KiB, the largest plain memory page in use. An absent shard is rows of zeros.

The manifest: `format`, `complete`, `encoding`, `head_dim`, `spec` (HashSpec), `step` (of the training that wrote it, or null),
`canonical` (`tokens`, `crc32c`, or null), `layers` (per block number: `shard_rows`; `scale`, the number that table-scaled codes
are taken against; `shards`, for each that is present the CRC-32C of its checksums), `origin` (or null) and `crc32c`, of the
rest of the manifest as JSON with sorted keys and no spaces. So every byte of a store is under a checksum, down from this one.

A store is written under another name and renamed when it is whole; only then does it bear `"complete": true`.
"""

import json
import operator
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite, lcm
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hashing.base.errors import EngramError
from hashing.spec import HashSpec
from table.encodings.encoding import ENCODINGS, Encoding
from table.store.checksum import BLOCK_BYTES, crc_text
from table.store.shard_map import HUGE_PAGE_BYTES
from table.store.zarr_metadata import array_json, canonical_json, group_json

Plane = Literal["codes", "scales", "table_scale"]  # of a record, or the number kept beside the table

FORMAT = 1
SHARD_BYTES = 64 << 20
MAX_HEAD_DIM = 1 << 16


def row_step(row_bytes: int) -> int:
    """The fewest rows that are a whole number of checksummed blocks."""
    return lcm(row_bytes, BLOCK_BYTES) // row_bytes


def shard_rows(row_bytes: int, rows: int, shard_bytes: int = SHARD_BYTES) -> int:
    """Rows of a shard: about `shard_bytes`, at most twice that, and no more than the table needs.

    A whole number of huge pages where that is not too long, so that every shard can be mapped in huge pages.
    """
    step, huge_step = row_step(row_bytes), lcm(row_bytes, HUGE_PAGE_BYTES) // row_bytes
    unit = huge_step if huge_step * row_bytes <= 2 * shard_bytes else step
    return min(max(1, shard_bytes // row_bytes // unit) * unit, -(-rows // step) * step)


@dataclass(frozen=True, slots=True)
class LayerShards:
    """How a layer's table is cut, and which of its shards are there."""

    shard_rows: int
    scale: float = 1.0
    shards: Mapping[int, str] = field(default_factory=dict)  # shard → CRC-32C of its checksums

    def to_json(self) -> dict[str, Any]:
        shards = {str(shard): crc for shard, crc in self.shards.items()}
        return {"shard_rows": self.shard_rows, "scale": self.scale, "shards": shards}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "LayerShards":
        _check_keys(content, {"shard_rows", "scale", "shards"}, "a layer")
        shards = {int(shard): str(crc) for shard, crc in content["shards"].items()}
        return cls(int(content["shard_rows"]), float(content["scale"]), shards)


@dataclass(frozen=True, slots=True)
class Cut:
    """A tensor of an origin file whose bytes are in a layer's table: rows from `first_row` on of one of its planes."""

    tensor: str
    layer: int
    plane: Plane
    first_row: int = 0


def is_file_name(name: str) -> bool:
    """Whether it names a file in a folder, and nothing outside it."""
    return Path(name).name == name and name not in {"", ".", ".."} and "\0" not in name


@dataclass(frozen=True, slots=True)
class OriginFile:
    """A file of the checkpoint: what is kept of it, and the tensors that are cut out."""

    name: str
    kept_bytes: int
    crc32c: str  # of the kept bytes
    cuts: tuple[Cut, ...] = ()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "OriginFile":
        _check_keys(content, {"name", "kept_bytes", "crc32c", "cuts"}, "a file of the origin")
        if not is_file_name(content["name"]):
            raise EngramError(f"a file of the origin would lie outside its folder: {content['name']!r}")
        return cls(**{**content, "cuts": tuple(Cut(**cut) for cut in content["cuts"])})


@dataclass(frozen=True, slots=True)
class Origin:
    """The checkpoint that tables came from."""

    kind: str
    name: str
    files: tuple[OriginFile, ...]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Origin":
        _check_keys(content, {"kind", "name", "files"}, "the origin")
        return cls(content["kind"], content["name"], tuple(OriginFile.from_json(f) for f in content["files"]))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store says of itself."""

    encoding: Encoding
    head_dim: int
    spec: HashSpec
    layers: Mapping[int, LayerShards]
    step: int | None = None
    canonical: tuple[int, str] | None = None  # tokens, CRC-32C of the map
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.head_dim <= MAX_HEAD_DIM:
            raise EngramError(f"head_dim is {self.head_dim}, expected 1 to {MAX_HEAD_DIM}")
        if tuple(sorted(self.layers)) != self.spec.layers:
            raise EngramError(f"the store has layers {sorted(self.layers)}, its hash spec {list(self.spec.layers)}")
        for number, layer in self.layers.items():
            step = row_step(self.row_bytes)
            if not isfinite(layer.scale):
                raise EngramError(f"layer {number} has the scale {layer.scale}, expected a finite number")
            if layer.shard_rows < 1 or layer.shard_rows % step:
                raise EngramError(f"layer {number} has shards of {layer.shard_rows} rows, expected a multiple of {step}")
            if beyond := [shard for shard in layer.shards if not 0 <= shard < self.shard_count(number)]:
                raise EngramError(f"layer {number} lists shard {beyond[0]}, expected 0 to {self.shard_count(number) - 1}")

    @property
    def row_bytes(self) -> int:
        return self.encoding.row_bytes(self.head_dim)

    def shard_count(self, layer: int) -> int:
        return -(-self.spec.rows(layer) // self.layers[layer].shard_rows)

    def shard_bytes(self, layer: int) -> int:
        return self.layers[layer].shard_rows * self.row_bytes

    def nodes(self) -> Iterator[tuple[str, bytes]]:
        """Every `zarr.json` but the root's: the folder it is in, and its bytes."""
        yield from (("layers", group_json({})), ("checksums", group_json({})))
        dtype = self.encoding.zarr_dtype
        width = self.row_bytes // np.dtype(dtype).itemsize
        for layer, cut in self.layers.items():
            yield f"layers/{layer}", array_json((self.spec.rows(layer), width), (cut.shard_rows, width), dtype)
            blocks = self.shard_bytes(layer) // BLOCK_BYTES
            yield f"checksums/{layer}", array_json((self.shard_count(layer), blocks), (1, blocks), "uint32")
        if self.canonical is not None:
            yield "canonical", array_json((self.canonical[0],), (self.canonical[0],), "int32")
        if self.origin is not None:
            yield "origin", group_json({})
            for position, file in enumerate(self.origin.files):
                yield f"origin/{position}", array_json((file.kept_bytes,), (file.kept_bytes,), "uint8")

    def to_json(self) -> dict[str, Any]:
        content = {
            "format": FORMAT,
            "complete": True,
            "encoding": self.encoding.name,
            "head_dim": self.head_dim,
            "spec": self.spec.to_json(),
            "step": self.step,
            "canonical": self.canonical and {"tokens": self.canonical[0], "crc32c": self.canonical[1]},
            "layers": {str(number): layer.to_json() for number, layer in self.layers.items()},
            "origin": self.origin and asdict(self.origin),
        }
        return {**content, "crc32c": crc_text(canonical_json(content))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Manifest":
        """Raises EngramError for a manifest that is unfinished, of another format, altered or inconsistent."""
        if content.get("complete") is not True:
            raise EngramError("it was not finished: its completion mark is missing")
        if (found := content.get("format")) != FORMAT:
            raise EngramError(f"it is of format {found}; this version reads format {FORMAT}")
        if not isinstance(name := content.get("encoding"), str) or name not in ENCODINGS:
            raise EngramError(f'its encoding "{name}" is not known; those that are: {", ".join(ENCODINGS)}')
        rest = {key: value for key, value in content.items() if key != "crc32c"}
        if (found := crc_text(canonical_json(rest))) != content.get("crc32c"):
            raise EngramError(f"its manifest was altered: its CRC-32C is {found}, expected {content.get('crc32c')}")
        keys = {"format", "complete", "encoding", "head_dim", "spec", "step", "canonical", "layers", "origin"}
        _check_keys(rest, keys, "the manifest")
        try:
            return cls._parsed(content)
        except (TypeError, AttributeError, KeyError, ValueError) as e:
            raise EngramError(f"its manifest is not of the form that format {FORMAT} has: {e}") from e

    @classmethod
    def _parsed(cls, content: Mapping[str, Any]) -> "Manifest":
        canonical = content["canonical"]
        return cls(
            encoding=ENCODINGS[content["encoding"]],
            head_dim=content["head_dim"],
            spec=HashSpec.from_json(content["spec"]),
            layers={int(number): LayerShards.from_json(layer) for number, layer in content["layers"].items()},
            step=None if content["step"] is None else operator.index(content["step"]),
            canonical=canonical and (operator.index(canonical["tokens"]), str(canonical["crc32c"])),
            origin=content["origin"] and Origin.from_json(content["origin"]),
        )


def _check_keys(content: Mapping[str, Any], expected: set[str], what: str) -> None:
    if different := sorted(set(content) ^ expected):
        raise EngramError(f"{what} has other keys than expected; missing or unknown: {', '.join(different)}")


def read_manifest(path: Path) -> Manifest:
    """Raises EngramError, saying which folder and why, when there is no finished store of this format."""
    if not path.is_dir():
        raise EngramError(f"no such table store: {path}")
    try:
        content = json.loads((path / "zarr.json").read_bytes())["attributes"]["engram"]
        assert isinstance(content, dict)
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as e:
        raise EngramError(f"{path} is not a table store: its zarr.json does not say so") from e
    try:
        return Manifest.from_json(content)
    except EngramError as e:
        raise EngramError(
            f"{path} cannot be used: {e}", hint=e.hint or "make it again, or engram table verify says more"
        ) from e


def shard_path(store: Path, layer: int, shard: int) -> Path:
    return store / "layers" / str(layer) / "c" / str(shard) / "0"


def checksum_path(store: Path, layer: int, shard: int) -> Path:
    return store / "checksums" / str(layer) / "c" / str(shard) / "0"


def cut_layers(
    spec: HashSpec, encoding: Encoding, head_dim: int, scales: Mapping[int, float] | None = None, shard_bytes: int | None = None
) -> dict[int, LayerShards]:
    """How each layer of a spec is cut into shards, none of them there yet."""
    row_bytes = encoding.row_bytes(head_dim)
    sizes = {} if shard_bytes is None else {"shard_bytes": shard_bytes}
    return {
        layer: LayerShards(shard_rows(row_bytes, spec.rows(layer), **sizes), (scales or {}).get(layer, 1.0))
        for layer in spec.layers
    }
