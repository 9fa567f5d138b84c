"""From a published checkpoint to a store, in bounded memory.

Rows stream through small buffers: the planes that a checkpoint keeps apart (codes here, scales there) are read piece by piece
and laid side by side as records. What else the files with tables hold is kept too, with the tables cut out, so that an export
gives back the same bytes. Interrupted, it goes on where it stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashing.base.atomic import refuse_overlap
from hashing.base.errors import EngramError
from hashing.spec import HashSpec
from table.checkpoints.checkpoint import Checkpoint, LayerSource, read_json
from table.checkpoints.deepseek import read_deepseek
from table.checkpoints.parts import Part, scratch
from table.checkpoints.qwen import read_qwen
from table.checkpoints.safetensors_file import read_header
from table.encodings.encoding import Encoding, Records
from table.recoding import EncodedRows, Recoding
from table.store.checksum import crc32c, extend_crc32c
from table.store.manifest import Cut, Manifest, Origin, OriginFile, cut_layers
from table.store.store import TableStore
from table.store.writer import Progress, StoreWriter, quiet, require_space

KEPT_PIECE_BYTES = 8 << 20


def read_checkpoint(path: Path, tokenizer: Path | None = None) -> Checkpoint:
    """The tables of a checkpoint folder, examined; its `faults` say what is wrong.

    Raises EngramError when there is no `config.json` of a known family, or not even the hash spec can be made out.
    """
    if not path.is_dir():
        raise EngramError(f"no such checkpoint folder: {path}")
    if tokenizer is not None and not tokenizer.exists():
        raise EngramError(f"no such tokenizer: {tokenizer}")
    content = read_json(path / "config.json")
    keys = content.get("text_config", content)
    if not isinstance(keys, dict):
        raise EngramError(f"{path / 'config.json'}: text_config is {keys!r}, expected an object")
    if "engram_layer_ids" in keys:
        return read_deepseek(path, tokenizer)
    if "ple_layer_ids" in keys:
        return read_qwen(path, tokenizer)
    raise EngramError(
        f"{path / 'config.json'} describes no model with Engram tables: it has neither engram_layer_ids nor ple_layer_ids",
        hint="for the demo's state dict, name the file itself and its hash spec",
    )


def choose_layers(checkpoint: Checkpoint, layers: Sequence[int]) -> Checkpoint:
    """Only some of its layers. Raises EngramError for one that it does not have."""
    if not layers:
        return checkpoint
    spec = spec_of_layers(checkpoint.spec, layers)
    chosen = {layer: checkpoint.layers[layer] for layer in spec.layers if layer in checkpoint.layers}
    files = {name: tuple(cut for cut in cuts if cut.layer in spec.layers) for name, cuts in checkpoint.table_files.items()}
    return replace(checkpoint, spec=spec, layers=chosen, table_files={name: cuts for name, cuts in files.items() if cuts})


def spec_of_layers(spec: HashSpec, layers: Sequence[int]) -> HashSpec:
    """The same addresses for fewer layers; multipliers are given outright, since some rules number the layers."""
    positions = sorted(spec.layer_index(layer) for layer in set(layers))
    return replace(
        spec,
        layers=tuple(spec.layers[p] for p in positions),
        primes=tuple(spec.primes[p] for p in positions),
        multipliers=tuple(spec.multipliers[p] for p in positions),
        seeding=None,
        seed=None,
    )


@dataclass(frozen=True, slots=True)
class Import:
    """What is to be written: `engram table import --dry-run` prints it."""

    checkpoint: Checkpoint
    encoding: Encoding

    @property
    def rows(self) -> int:
        return sum(self.checkpoint.spec.rows(layer) for layer in self.checkpoint.spec.layers)

    @property
    def written_bytes(self) -> int:
        """Of rows and of what is kept besides."""
        return self.rows * self.encoding.row_bytes(self.checkpoint.head_dim) + sum(f.kept_bytes for f in self.origin_sizes())

    def origin_sizes(self) -> list[OriginFile]:
        """Origin files with their sizes, not yet their checksums."""
        return [OriginFile(s.name, s.kept_bytes, "", s.cuts) for s in kept_files(self.checkpoint)]

    def run(self, out: Path, progress: Progress = quiet, shard_bytes: int | None = None) -> TableStore:
        """Raises EngramError, before anything is written, for a checkpoint with faults or a drive without room."""
        checkpoint = self.checkpoint.check()
        refuse_overlap(out, checkpoint.path)
        require_space(out, self.written_bytes)
        kept = kept_files(checkpoint)
        recodings = {layer: Recoding.of(layer_rows(checkpoint, layer), self.encoding) for layer in checkpoint.spec.layers}
        scales = {layer: recoding.scale for layer, recoding in recodings.items()}
        manifest = Manifest(
            encoding=self.encoding,
            head_dim=checkpoint.head_dim,
            spec=checkpoint.spec,
            layers=cut_layers(checkpoint.spec, self.encoding, checkpoint.head_dim, scales, shard_bytes),
            origin=Origin(checkpoint.kind, checkpoint.path.name, tuple(file.described() for file in kept)),
        )
        with StoreWriter(out, manifest, checkpoint.mapping, checkpoint.stamp) as writer:
            for position, file in enumerate(kept):
                writer.write_origin(position, file.pieces())
            for layer in checkpoint.spec.layers:
                writer.write_layer(layer, recodings[layer].fill, progress)
            if checkpoint.stamp != writer.stamp:
                raise EngramError(f"{checkpoint.path} changed while it was imported", hint="import it again when it is at rest")
            writer.finish()
        return TableStore.open(out)


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of the checkpoint without the bytes of its cut tensors."""

    path: Path
    name: str
    ranges: tuple[tuple[int, int], ...]  # kept bytes, begin ≤ offset < end
    cuts: tuple[Cut, ...]

    @property
    def kept_bytes(self) -> int:
        return sum(end - begin for begin, end in self.ranges)

    def pieces(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for begin, end in self.ranges:
                file.seek(begin)
                for done in range(begin, end, KEPT_PIECE_BYTES):
                    yield file.read(min(KEPT_PIECE_BYTES, end - done))

    def described(self) -> OriginFile:
        crc = crc32c(b"")
        for piece in self.pieces():
            crc = extend_crc32c(crc, piece)
        return OriginFile(self.name, self.kept_bytes, f"{crc:08x}", self.cuts)


def kept_files(checkpoint: Checkpoint) -> list[KeptFile]:
    """The small files whole, then those with tables."""
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    whole = [KeptFile(path, path.name, ((0, path.stat().st_size),), ()) for path in checkpoint.whole_files]
    return whole + [_without(folder / name, cuts) for name, cuts in checkpoint.table_files.items()]


def _without(path: Path, cuts: tuple[Cut, ...]) -> KeptFile:
    file = read_header(path)
    edges = [0]
    for tensor in sorted((file.tensors[cut.tensor] for cut in cuts), key=lambda t: t.begin):
        edges += [tensor.begin, tensor.end]
    edges.append(file.size)
    ranges = tuple((begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True) if begin < end)
    return KeptFile(path, path.name, ranges, cuts)


def layer_rows(checkpoint: Checkpoint, layer: int) -> EncodedRows:
    source = checkpoint.layers[layer]
    rows, head_dim = checkpoint.spec.rows(layer), checkpoint.head_dim
    return EncodedRows(checkpoint.encoding, head_dim, rows, source.scale, lambda first, out: read_records(source, first, out))


def read_records(source: LayerSource, first: int, records: Records) -> None:
    """Records from row `first` on, the planes side by side."""
    if len(source.planes) == 1:
        _read_plane(source.planes[0], first, records)
        return
    column = 0
    for plane in source.planes:
        piece = scratch(len(records), plane[0].width)
        _read_plane(plane, first, piece)
        records[:, column : column + plane[0].width] = piece
        column += plane[0].width


def _read_plane(parts: Sequence[Part], first: int, out: NDArray[np.uint8]) -> None:
    """Rows from the parts that they fall into."""
    begin = 0
    for part in parts:
        low, high = max(first, begin), min(first + len(out), begin + part.rows)
        if low < high:
            part.read(low - begin, out[low - first : high - first])
        begin += part.rows
