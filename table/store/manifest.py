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
rest of the manifest as JSON with sorted keys, no spaces and all beyond ASCII escaped (`docs/format.md` has an example).
So every byte of a store is under a checksum, down from this one.

A store is written under another name and renamed when it is whole; only then does it bear `"complete": true`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite, lcm
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from hashing.base.errors import EngramError
from hashing.base.json_object import JsonObject, brief, read_json
from hashing.spec import HashSpec
from table.encodings.encoding import ENCODINGS, Encoding
from table.store.checksum import BLOCK_BYTES, CRC_TEXT, crc_text
from table.store.origin import Origin, OriginFile
from table.store.shard_map import HUGE_PAGE_BYTES
from table.store.zarr_metadata import array_json, canonical_json, group_json

FORMAT = 1
SHARD_BYTES = 64 << 20
MAX_HEAD_DIM = 1 << 16
MAX_TOKENS = 1 << 24  # of a vocabulary: a hundred times the largest in use
MAX_SHARDS = 1 << 20  # of a store: 64 TiB in shards of the usual size
MAX_LAYER_BYTES = 1 << 46  # a table is mapped whole, into half of a process's address space
MAX_MANIFEST_BYTES = 64 << 20  # that of a store with MAX_SHARDS shards
KEYS = ("format", "complete", "encoding", "head_dim", "spec", "step", "canonical", "layers", "origin")


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
    def from_json(cls, content: JsonObject) -> "LayerShards":
        content.check_names("shard_rows", "scale", "shards")
        shards = content.child("shards")
        checksums = {shard: shards.text(name, CRC_TEXT) for shard, name in shards.numbers()}
        return cls(content.integer("shard_rows", least=1), content.number("scale"), checksums)


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
        for number in self.layers:
            self._check_layer(number)
        if (count := sum(map(self.shard_count, self.layers))) > MAX_SHARDS:
            raise EngramError(f"the tables would be {count:,} shards, expected {MAX_SHARDS:,} at most: they are too large")
        for file in self.origin_files:
            self._check_cuts(file)

    def _check_layer(self, number: int) -> None:
        layer, rows, step = self.layers[number], self.spec.rows(number), row_step(self.row_bytes)
        if not isfinite(layer.scale):
            raise EngramError(f"layer {number} has the scale {layer.scale}, expected a finite number")
        if layer.shard_rows < 1 or layer.shard_rows % step:
            raise EngramError(f"layer {number} has shards of {layer.shard_rows} rows, expected a multiple of {step}")
        if layer.shard_rows >= rows + step:
            raise EngramError(f"layer {number} has shards of {layer.shard_rows} rows, but {rows} rows in all")
        if (size := self.shard_count(number) * self.shard_bytes(number)) > MAX_LAYER_BYTES:
            raise EngramError(f"layer {number} would be {size:,} bytes, expected {MAX_LAYER_BYTES:,} at most")
        if beyond := [shard for shard in layer.shards if not 0 <= shard < self.shard_count(number)]:
            raise EngramError(f"layer {number} lists shard {beyond[0]}, expected 0 to {self.shard_count(number) - 1}")

    def _check_cuts(self, file: OriginFile) -> None:
        for cut in file.cuts:
            if cut.layer not in self.layers:
                raise EngramError(f"{cut.tensor} of {file.name} is of layer {cut.layer}, which has no table")
            if not 0 <= cut.first_row < self.spec.rows(cut.layer):
                last = self.spec.rows(cut.layer) - 1
                raise EngramError(f"{cut.tensor} of {file.name} begins at row {cut.first_row}, expected 0 to {last}")

    @property
    def origin_files(self) -> tuple[OriginFile, ...]:
        """The files of the checkpoint that the tables came from; none where they were made here."""
        return self.origin.files if self.origin else ()

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
            for position, file in enumerate(self.origin_files):
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
    def from_json(cls, content: JsonObject) -> "Manifest":
        """Raises EngramError for a manifest that is unfinished, of another format, altered or inconsistent."""
        rest = dict(content.members)
        kept = rest.pop("crc32c", None)
        if rest.get("complete") is not True:
            raise EngramError("it was not finished: its completion mark is missing")
        if type(found := rest.get("format")) is not int or found != FORMAT:
            raise EngramError(f"it is of format {brief(found)}; this version reads format {FORMAT}")
        if not isinstance(name := rest.get("encoding"), str) or name not in ENCODINGS:
            raise EngramError(f'its encoding "{name}" is not known; those that are: {", ".join(ENCODINGS)}')
        if (found := crc_text(canonical_json(rest))) != kept:
            raise EngramError(f"its manifest was altered: its CRC-32C is {found}, expected {brief(kept)}")
        content.check_names(*KEYS, "crc32c")
        layers = content.child("layers")
        return cls(
            encoding=ENCODINGS[name],
            head_dim=content.integer("head_dim", 1, MAX_HEAD_DIM),
            spec=HashSpec.from_json(content.child("spec").members),
            layers={number: LayerShards.from_json(layers.child(name)) for number, name in layers.numbers()},
            step=None if content.is_null("step") else content.integer("step"),
            canonical=None if content.is_null("canonical") else _canonical(content.child("canonical")),
            origin=None if content.is_null("origin") else Origin.from_json(content.child("origin")),
        )


def _canonical(content: JsonObject) -> tuple[int, str]:
    """Tokens of the canonical map, and its checksum."""
    content.check_names("tokens", "crc32c")
    return content.integer("tokens", 1, MAX_TOKENS), content.text("crc32c", CRC_TEXT)


def read_manifest(path: Path) -> Manifest:
    """Raises EngramError, saying which folder and why, when there is no finished store of this format."""
    if not path.is_dir():
        raise EngramError(f"no such table store: {path}", hint="name a store's folder, or a run that has tables with --run")
    try:
        content = read_json(path / "zarr.json", MAX_MANIFEST_BYTES).child("attributes").child("engram")
    except EngramError as e:
        raise EngramError(f"{path} is not a table store: its zarr.json does not say so ({e})", hint=e.hint) from e
    try:
        return Manifest.from_json(JsonObject("its manifest", content.members))
    except EngramError as e:
        raise EngramError(
            f"{path} cannot be used: {e}", hint=e.hint or f"make it again, or engram table verify {quote(str(path))} says more"
        ) from e


def shard_path(store: Path, layer: int, shard: int) -> Path:
    return store / "layers" / str(layer) / "c" / str(shard) / "0"


def checksum_path(store: Path, layer: int, shard: int) -> Path:
    return store / "checksums" / str(layer) / "c" / str(shard) / "0"


def origin_path(store: Path, position: int) -> Path:
    """What is kept of an origin's file."""
    return store / "origin" / str(position) / "c" / "0"


def canonical_path(store: Path) -> Path:
    return store / "canonical" / "c" / "0"


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
