"""TableStore: an opened store, its tables, hash spec and canonical map. `table/store/manifest.py` says what lies where."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.base.path_argument import check_path
from hashing.spec import NO_VOCAB, HashSpec
from table.encodings.encoding import ENCODINGS, Encoding, Records
from table.store.checksum import BLOCK_BYTES, block_checksums, crc_text
from table.store.gather import Table
from table.store.manifest import (
    Manifest,
    canonical_path,
    checksum_path,
    cut_layers,
    origin_path,
    read_manifest,
    shard_path,
)
from table.store.origin import check_kept
from table.store.parts import FilePart, scratch
from table.store.shard_map import map_shards
from table.store.table_files import TableFiles
from table.store.writer import Fill, StoreWriter


@dataclass(frozen=True, slots=True)
class TableStore:
    """An opened store. Raises EngramError, from `open`, for whatever is not a finished store of this format."""

    path: Path
    manifest: Manifest
    mapping: NDArray[np.int32]  # (tokens,) token id → canonical id; empty where no tokenizer was known

    @classmethod
    def open(cls, path: Path) -> "TableStore":
        check_path(path, "TableStore.open")
        manifest = read_manifest(path)
        for folder, expected in manifest.nodes():
            file = path / folder / "zarr.json"
            if not file.is_file():
                raise EngramError(f"{path} is incomplete: {folder}/zarr.json is missing")
            if file.stat().st_size != len(expected) or file.read_bytes() != expected:
                raise EngramError(f"{file} does not describe the array that the manifest does")
        return cls(path, manifest, _read_mapping(path, manifest))

    @property
    def spec(self) -> HashSpec:
        return self.manifest.spec

    @property
    def encoding(self) -> Encoding:
        return self.manifest.encoding

    @property
    def head_dim(self) -> int:
        return self.manifest.head_dim

    @property
    def step(self) -> int | None:
        return self.manifest.step

    @property
    def row_bytes(self) -> int:
        return self.manifest.row_bytes

    @property
    def total_rows(self) -> int:
        return self.spec.total_rows

    @property
    def total_bytes(self) -> int:
        """Apparent size of all rows."""
        return self.total_rows * self.row_bytes

    @property
    def vocab_fingerprint(self) -> str | None:
        """The fingerprint of the vocabulary that addressed the rows, or None where no tokenizer was known."""
        fingerprint = self.spec.vocab_fingerprint
        return None if fingerprint == NO_VOCAB else fingerprint

    def check_vocab(self, fingerprint: str) -> None:
        """Raises EngramError when the store was addressed with another vocabulary, or does not know with which."""
        own = self.vocab_fingerprint
        if own is None:
            raise EngramError(
                f"{self.path} does not know its vocabulary: it was made without a tokenizer",
                hint="make it again with --tokenizer",
            )
        if fingerprint != own:
            raise EngramError(
                f"{self.path} was addressed with vocabulary {own}, but the one given is {fingerprint}",
                hint="use the vocab.parquet that the tables were made with",
            )

    def checksums(self, layer: int, shard: int) -> NDArray[np.uint32]:
        """(blocks,) What the checksums of a shard's blocks should be. Raises EngramError when they are missing or altered."""
        path = checksum_path(self.path, layer, shard)
        content = path.read_bytes() if path.is_file() else b""
        if (found := crc_text(content)) != (kept := self.manifest.layers[layer].shards[shard]):
            raise EngramError(f"layer {layer}, shard {shard}: its checksums have CRC-32C {found}, expected {kept}")
        if (count := len(content) // 4) != (expected := self.manifest.shard_bytes(layer) // BLOCK_BYTES):
            raise EngramError(f"layer {layer}, shard {shard}: {count} checksums, expected {expected}")
        return np.frombuffer(content, "<u4")

    def read_records(self, layer: int, first: int, out: Records) -> None:
        """Fills `out` (count, row_bytes) with records from row `first` on, read rather than mapped: for passing over all rows.

        Raises EngramError for a shard that is missing or truncated. Damage is not looked for: `read_checked` does.
        """
        for shard, row, piece in self._in_shards(layer, first, out):
            rows = self.manifest.layers[layer].shard_rows
            FilePart(shard_path(self.path, layer, shard), 0, rows, self.row_bytes).read(row, piece)

    def read_checked(self, layer: int, first: int, out: Records) -> None:
        """As `read_records`, against the checksums of the blocks that the rows lie in.

        Raises EngramError, naming layer, shard and rows, when a block is not what was written.
        """
        for shard, row, piece in self._in_shards(layer, first, out):
            begin = row * self.row_bytes // BLOCK_BYTES
            end = -(-(row + len(piece)) * self.row_bytes // BLOCK_BYTES)
            whole = piece.nbytes == (end - begin) * BLOCK_BYTES  # then the blocks are read to where they go
            blocks = piece.reshape(1, -1) if whole else scratch(1, (end - begin) * BLOCK_BYTES)
            FilePart(self.shard(layer, shard), begin * BLOCK_BYTES, 1, blocks.size).read(0, blocks)
            found, kept = block_checksums(blocks[0]), self.checksums(layer, shard)[begin:end]
            for block in np.flatnonzero(found != kept):
                raise self._damage(layer, shard, begin + int(block), int(found[block]), int(kept[block]))
            if not whole:
                skipped = row * self.row_bytes - begin * BLOCK_BYTES
                piece.reshape(-1)[:] = blocks[0, skipped : skipped + piece.size]

    def _in_shards(self, layer: int, first: int, out: Records) -> Iterator[tuple[int, int, Records]]:
        """For each shard that is there: its number, a row in it and the part of `out` from that row on. The rest is zeroed."""
        cut, done = self.manifest.layers[layer], 0
        while done < len(out):
            shard, row = divmod(first + done, cut.shard_rows)
            piece = out[done : done + cut.shard_rows - row]
            if shard in cut.shards:
                yield shard, row, piece
            else:
                piece[:] = 0
            done += len(piece)

    def _damage(self, layer: int, shard: int, block: int, found: int, kept: int) -> EngramError:
        begin = shard * self.manifest.layers[layer].shard_rows
        first = begin + block * BLOCK_BYTES // self.row_bytes
        last = begin + ((block + 1) * BLOCK_BYTES - 1) // self.row_bytes
        rows = f"rows {first:,} to {min(last, self.spec.rows(layer) - 1):,}"
        return EngramError(
            f"{self.path}: layer {layer}, shard {shard}: {rows} are damaged: the checksum is {found:08x}, expected {kept:08x}",
            hint=f"engram table verify --full {quote(str(self.path))} lists all damage; make them again from their source",
        )

    def shard(self, layer: int, shard: int) -> Path:
        """A shard's file. Raises EngramError when it is missing or not of its size."""
        path, expected = shard_path(self.path, layer, shard), self.manifest.shard_bytes(layer)
        if not path.is_file():
            raise EngramError(f"a shard of layer {layer} is missing: {path}", hint="import the tables again")
        if (found := path.stat().st_size) != expected:
            raise EngramError(f"{path} has {found:,} bytes, expected {expected:,}: the shard is truncated or of another store")
        return path

    def kept_path(self, position: int) -> Path:
        """Where the kept bytes of an origin's file are. Raises EngramError when they are missing or altered."""
        path = origin_path(self.path, position)
        check_kept(path, self.manifest.origin_files[position])
        return path

    def table(self, layer: int) -> Table:
        """A layer's table, mapped: nothing is read until a row is touched. Raises EngramError for missing or cut shards."""
        self.spec.layer_index(layer)
        cut = self.manifest.layers[layer]
        shards = [self.shard(layer, i) if i in cut.shards else None for i in range(self.manifest.shard_count(layer))]
        rows = self.spec.rows(layer)
        parts = [FilePart(shard, 0, cut.shard_rows, self.row_bytes) if shard else None for shard in shards]
        files = TableFiles(parts, np.append(np.arange(len(shards)) * cut.shard_rows, rows))
        records = map_shards(shards, self.manifest.shard_bytes(layer)).reshape(-1, self.row_bytes)[:rows]
        return Table(records, self.encoding, self.head_dim, cut.scale, files)

    def layer(self, layer: int) -> NDArray[np.float32]:
        """(rows, head_dim) A float32 layer's table as an array. Raises EngramError for other encodings."""
        if self.encoding.name != "float32":
            raise EngramError(
                f"{self.path} holds {self.encoding.name} rows, expected float32",
                hint=f"convert it with engram table convert {quote(str(self.path))} --out … --encoding float32",
            )
        return self.table(layer).records.view("<f4")


def _read_mapping(path: Path, manifest: Manifest) -> NDArray[np.int32]:
    if manifest.canonical is None:
        return np.empty(0, np.int32)
    tokens, crc = manifest.canonical
    file = canonical_path(path)
    content = file.read_bytes() if file.is_file() and file.stat().st_size == 4 * tokens else b""
    if crc_text(content) != crc:
        raise EngramError(f"{path} cannot be used: its canonical map is missing or was altered")
    return np.frombuffer(content, "<i4").astype(np.int32)


def write_store(
    path: Path,
    spec: HashSpec,
    mapping: NDArray[np.int32],
    tables: Mapping[int, NDArray[np.float32]],
    step: int | None = None,
) -> TableStore:
    """Writes a float32 store of the spec's layers, `tables` giving (rows, head_dim) for each; it appears whole or not."""
    encoding, head_dim = ENCODINGS["float32"], next(iter(tables.values())).shape[1]
    manifest = Manifest(encoding, head_dim, spec, cut_layers(spec, encoding, head_dim), step)
    with StoreWriter(path, manifest, mapping) as writer:
        for layer in spec.layers:
            table = tables[layer]
            assert table.shape == (spec.rows(layer), head_dim)
            writer.write_layer(layer, _copier(table))
        writer.finish()
    return TableStore.open(path)


def _copier(table: NDArray[np.float32]) -> Fill:
    def fill(first: int, records: Records) -> None:
        records.view("<f4")[:] = table[first : first + len(records)]

    return fill


def create_store(path: Path, spec: HashSpec, mapping: NDArray[np.int32], encoding: Encoding, head_dim: int) -> TableStore:
    """A store of zeros: no shard is there, so it costs kilobytes whatever its size."""
    layers = cut_layers(spec, encoding, head_dim)
    with StoreWriter(path, Manifest(encoding, head_dim, spec, layers), mapping) as writer:
        writer.finish()
    return TableStore.open(path)
