"""A store's rows in another encoding, and how far they are from what they were."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from math import log10, sqrt
from pathlib import Path
from threading import Lock

import numpy as np

from hashing.base.atomic import refuse_overlap, remove
from hashing.base.errors import EngramError
from table.encodings.encoding import Encoding, Values
from table.recoding import EncodedRows, Recoding
from table.store.checksum import crc_text
from table.store.manifest import cut_layers
from table.store.origin import chunk_pieces
from table.store.store import TableStore
from table.store.writer import THREADS, Progress, StoreWriter, quiet, require_space
from table.store.zarr_metadata import canonical_json

WORST_ROWS = 5


def store_rows(store: TableStore, layer: int) -> EncodedRows:
    """A layer's rows; reading them raises EngramError where they are damaged."""
    scale, read = store.manifest.layers[layer].scale, partial(store.read_checked, layer)
    return EncodedRows(store.encoding, store.head_dim, store.spec.rows(layer), scale, read)


def convert(
    store: TableStore, out: Path, encoding: Encoding, progress: Progress = quiet, shard_bytes: int | None = None
) -> TableStore:
    """Writes the store in another encoding; interrupted, it goes on where it stopped. Progress counts written bytes.

    Raises EngramError for a source that is damaged or not whole, and then leaves nothing behind.
    """
    refuse_overlap(out, store.path)
    require_space(out, store.total_rows * encoding.row_bytes(store.head_dim))
    recodings = {layer: Recoding.of(store_rows(store, layer), encoding) for layer in store.spec.layers}
    scales = {layer: recoding.scale for layer, recoding in recodings.items()}
    layers = cut_layers(store.spec, encoding, store.head_dim, scales, shard_bytes)
    manifest = replace(store.manifest, encoding=encoding, layers=layers)
    stamp = crc_text(canonical_json(store.manifest.to_json()))
    with StoreWriter(out, manifest, store.mapping, stamp) as writer:
        try:
            _write(store, recodings, writer, progress)
        except EngramError:
            remove(writer.partial)  # while the writer still holds it; another run would meet the same damage
            raise
    return TableStore.open(out)


def _write(store: TableStore, recodings: Mapping[int, Recoding], writer: StoreWriter, progress: Progress) -> None:
    for position in range(len(store.manifest.origin_files)):
        writer.write_origin(position, chunk_pieces(store.kept_path(position)))
    for layer, recoding in recodings.items():
        writer.write_layer(layer, recoding.fill, progress)
    writer.finish()


@dataclass(slots=True)
class LayerError:
    """How far a layer's rows are from those they were made from. Rows that hold NaN or infinity are only counted."""

    layer: int
    signal: float = 0.0  # sums over all numbers: v², d², v·d, (v - d)²
    stored: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    saturated: int = 0
    rows_skipped: int = 0
    worst: list[tuple[float, int]] = field(default_factory=list)  # (relative error, row), the largest first
    _lock: Lock = field(default_factory=Lock)

    @property
    def relative_rms_error(self) -> float:
        return sqrt(self.noise / self.signal) if self.signal else 0.0

    @property
    def snr_db(self) -> float | None:
        """The signal-to-noise ratio in decibels, or None where nothing was lost."""
        return 10 * log10(self.signal / self.noise) if self.noise and self.signal else None

    @property
    def cosine(self) -> float:
        norm = sqrt(self.signal * self.stored)
        return self.product / norm if norm else 1.0

    def add(self, first: int, values: Values, decoded: Values, saturated: int) -> None:
        numbers = np.isfinite(values).all(axis=1)
        v, d = values.astype(np.float64), decoded.astype(np.float64)
        v[~numbers] = d[~numbers] = 0
        signal, noise = (v * v).sum(axis=1), ((v - d) ** 2).sum(axis=1)
        relative = np.sqrt(np.divide(noise, signal, out=np.zeros_like(noise), where=signal > 0))
        largest = np.argsort(-relative, kind="stable")[:WORST_ROWS]
        found = [(float(relative[i]), first + int(i)) for i in largest if relative[i] > 0]
        with self._lock:
            self.signal += float(signal.sum())
            self.noise += float(noise.sum())
            self.stored += float((d * d).sum())
            self.product += float((v * d).sum())
            self.saturated += saturated
            self.rows_skipped += int((~numbers).sum())
            self.worst = sorted([*self.worst, *found], key=lambda pair: (-pair[0], pair[1]))[:WORST_ROWS]


def measure(source: TableStore, target: TableStore, progress: Progress = quiet) -> list[LayerError]:
    """Compares every row of two stores of the same spec; progress counts rows."""
    return [_measure_layer(source, target, layer, progress) for layer in source.spec.layers]


def _measure_layer(source: TableStore, target: TableStore, layer: int, progress: Progress) -> LayerError:
    before, after = store_rows(source, layer), store_rows(target, layer)
    error = LayerError(layer)

    def compare(piece: tuple[int, int]) -> None:
        values = before.values(*piece)
        saturated = target.encoding.encoded(values, after.scale)[1]
        error.add(piece[0], values, after.values(*piece), saturated)
        progress(piece[1])

    with ThreadPoolExecutor(THREADS, thread_name_prefix="measure") as threads:
        for _ in threads.map(compare, before.pieces()):
            pass
    return error
