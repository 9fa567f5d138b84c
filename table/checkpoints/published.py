"""Published checkpoints: where the rows of their tables are, and the hash spec that goes with them.

Everything is derived from small things, `config.json`, the index and the headers, and everything that is said twice is
compared, so that a checkpoint whose parts disagree is refused before a row is copied. Each family has its module (`deepseek`,
`qwen`, `demo`); what all of them give is here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.spec import HashSpec
from table.checkpoints.safetensors_file import Tensor
from table.encodings.encoding import Encoding, Records
from table.recoding import EncodedRows
from table.store.origin import Cut, KeptFile
from table.store.parts import Part, scratch


@dataclass(frozen=True, slots=True)
class LayerSource:
    """Where a layer's rows come from: the planes of its records side by side, each in parts end to end."""

    planes: tuple[tuple[Part, ...], ...]
    scale: float = 1.0

    def read(self, first: int, records: Records) -> None:
        """Fills (rows, row_bytes) with the records from row `first` on."""
        if len(self.planes) == 1:
            _read_plane(self.planes[0], first, records)
            return
        column = 0
        for plane in self.planes:
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


@dataclass(frozen=True, slots=True)
class TableFile:
    """A safetensors file that holds tables, and its tensors that do."""

    path: Path
    cuts: tuple[tuple[Tensor, Cut], ...]

    def of_layers(self, layers: Sequence[int]) -> "TableFile":
        return replace(self, cuts=tuple((tensor, cut) for tensor, cut in self.cuts if cut.layer in layers))

    def kept(self) -> KeptFile:
        holes = [(tensor.begin, tensor.end) for tensor, _ in self.cuts]
        return KeptFile.without(self.path, self.path.stat().st_size, holes, tuple(cut for _, cut in self.cuts))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's tables, ready to be read. `faults` are what is wrong with it; with any, it must not be imported."""

    kind: str
    path: Path
    spec: HashSpec
    encoding: Encoding
    head_dim: int
    mapping: NDArray[np.int32]
    layers: Mapping[int, LayerSource]
    whole_files: tuple[Path, ...]  # small ones an export gives back as they are
    table_files: tuple[TableFile, ...]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what is believed because nothing here can prove it

    @property
    def total_bytes(self) -> int:
        return self.spec.total_rows * self.encoding.row_bytes(self.head_dim)

    @property
    def stamp(self) -> str:
        """Changes when a file that is read does. Raises EngramError when one is gone."""
        files = [*self.whole_files, *(file.path for file in self.table_files)] or [self.path]
        try:
            states = [(file.name, file.stat()) for file in files]
        except FileNotFoundError as e:
            raise EngramError(f"no such file: {e.filename}") from e
        return json.dumps([[name, s.st_size, s.st_mtime_ns] for name, s in states])

    def check(self) -> "Checkpoint":
        """Raises EngramError with the first fault, if there is one."""
        if self.faults:
            more = f" ({len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            raise EngramError(
                f"{self.path} is refused: {self.faults[0]}{more}",
                hint=f"engram table verify {quote(str(self.path))} lists every fault",
            )
        return self

    def rows(self, layer: int) -> EncodedRows:
        source = self.layers[layer]
        return EncodedRows(self.encoding, self.head_dim, self.spec.rows(layer), source.scale, source.read)

    def kept_files(self) -> list[KeptFile]:
        """What a store keeps of the files: the small ones whole, then those with tables."""
        return [*map(KeptFile.whole, self.whole_files), *(file.kept() for file in self.table_files)]


def choose_layers(checkpoint: Checkpoint, layers: Sequence[int]) -> Checkpoint:
    """Only some of its layers. Raises EngramError for one that it does not have."""
    if not layers:
        return checkpoint
    spec = spec_of_layers(checkpoint.spec, layers)
    chosen = {layer: checkpoint.layers[layer] for layer in spec.layers if layer in checkpoint.layers}
    files = (file.of_layers(spec.layers) for file in checkpoint.table_files)
    return replace(checkpoint, spec=spec, layers=chosen, table_files=tuple(file for file in files if file.cuts))


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
