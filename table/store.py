"""TableStore: the tables, the hash spec and the canonical map in one Zarr v3 group.

    tables.zarr/
      zarr.json                  group; attributes "engram": format, complete, encoding, head_dim, spec, step
      canonical/                 int32 (tokens,): token id → canonical id
      layers/<block>/            float32 (rows, head_dim), uncompressed, little-endian, chunks (shard_rows, head_dim)
        c/<i>/0                  shard i: rows i·shard_rows … (i+1)·shard_rows - 1, raw and row-major, padded with zeros at the end

A shard is one chunk of the array and one file, so any Zarr reader opens it and we map it. An absent shard is rows of zeros. The
store is written under another name and renamed when it is whole; only then does it bear `"complete": true`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from hashing.atomic import atomic_path
from hashing.errors import EngramError
from hashing.spec import HashSpec
from table.mapping import PAGE_BYTES, map_shards

FORMAT = 1
ENCODING = "float32"
SHARD_BYTES = 64 << 20


def shard_rows(row_bytes: int) -> int:
    """Rows of a shard: about SHARD_BYTES of them, a whole number of memory pages."""
    step = lcm(row_bytes, PAGE_BYTES) // row_bytes
    return max(step, SHARD_BYTES // row_bytes // step * step)


@dataclass(frozen=True, slots=True)
class TableStore:
    """An opened store. Raises EngramError, from `open`, for whatever is not a finished store of this format."""

    path: Path
    spec: HashSpec
    head_dim: int
    mapping: NDArray[np.int32]  # (tokens,) token id → canonical id
    step: int | None = None  # of the training that wrote it

    @classmethod
    def open(cls, path: Path) -> "TableStore":
        if not path.is_dir():
            raise EngramError(f"no such table store: {path}")
        try:
            group = zarr.open_group(path, mode="r")
            content: Any = dict(group.attrs)["engram"]
            canonical = group["canonical"]
        except (FileNotFoundError, KeyError, ValueError) as e:
            raise EngramError(f"{path} is not a table store: its zarr.json does not say so") from e
        if content.get("complete") is not True:
            raise EngramError(f"{path} was not finished: its completion mark is missing", hint="write it again")
        if content["format"] != FORMAT or content["encoding"] != ENCODING:
            found = f"format {content['format']}, encoding {content['encoding']}"
            raise EngramError(f"{path} has {found}; this version reads format {FORMAT}, encoding {ENCODING}")
        assert isinstance(canonical, zarr.Array)
        spec = HashSpec.from_json(content["spec"])
        return cls(path, spec, content["head_dim"], np.asarray(canonical[:], np.int32), content["step"])

    @property
    def row_bytes(self) -> int:
        return self.head_dim * 4

    @property
    def total_rows(self) -> int:
        return sum(self.spec.rows(layer) for layer in self.spec.layers)

    @property
    def total_bytes(self) -> int:
        """Apparent size of all rows."""
        return self.total_rows * self.row_bytes

    def check_vocab(self, fingerprint: str) -> None:
        """Raises EngramError when the store was addressed with another vocabulary."""
        if fingerprint != self.spec.vocab_fingerprint:
            raise EngramError(
                f"{self.path} was addressed with vocabulary {self.spec.vocab_fingerprint}, but the one given is {fingerprint}",
                hint="use the vocab.parquet that the tables were made with",
            )

    def shard_paths(self, layer: int) -> list[Path]:
        shards = -(-self.spec.rows(layer) // shard_rows(self.row_bytes))
        return [self.path / "layers" / str(layer) / "c" / str(i) / "0" for i in range(shards)]

    def layer(self, layer: int) -> NDArray[np.float32]:
        """(rows, head_dim) A layer's table, mapped: nothing is read until a row is touched."""
        expected = shard_rows(self.row_bytes) * self.row_bytes
        shards = [path if path.exists() else None for path in self.shard_paths(layer)]
        for path in filter(None, shards):
            if (found := path.stat().st_size) != expected:
                raise EngramError(f"{path} has {found:,} bytes, expected {expected:,}: the shard is truncated or not of this store")
        flat = map_shards(shards, expected).view("<f4")
        return flat.reshape(-1, self.head_dim)[: self.spec.rows(layer)]


def write_store(
    path: Path,
    spec: HashSpec,
    mapping: NDArray[np.int32],
    tables: Mapping[int, NDArray[np.float32]],
    step: int | None = None,
) -> None:
    """Writes a store of the spec's layers, `tables` giving (rows, head_dim) for each; it appears whole or not at all."""
    head_dim = next(iter(tables.values())).shape[1]
    with atomic_path(path) as partial:
        group = zarr.create_group(partial)
        canonical = group.create_array("canonical", shape=mapping.shape, dtype="int32", chunks=mapping.shape, compressors=None)
        canonical[:] = mapping
        for layer in spec.layers:
            _write_layer(partial / "layers" / str(layer), group, layer, tables[layer])
        group.attrs["engram"] = {
            "format": FORMAT,
            "complete": True,
            "encoding": ENCODING,
            "head_dim": head_dim,
            "spec": spec.to_json(),
            "step": step,
        }


def _write_layer(folder: Path, group: zarr.Group, layer: int, table: NDArray[np.float32]) -> None:
    rows = shard_rows(table.shape[1] * 4)
    group.create_array(
        f"layers/{layer}", shape=table.shape, dtype="float32", chunks=(rows, table.shape[1]), compressors=None, filters=None
    )
    for first in range(0, len(table), rows):
        shard = folder / "c" / str(first // rows) / "0"
        shard.parent.mkdir(parents=True)
        with shard.open("wb") as file:
            file.write(np.ascontiguousarray(table[first : first + rows], "<f4").data)
            file.truncate(rows * table.shape[1] * 4)
