"""Whether a store or a checkpoint folder is what it should be.

Quick: everything small is read and compared, and every file's size. Full: every byte too, against the checksums of a store, and
every row for NaN and infinite codes and scales out of the ordinary. Rows of zeros are noted, not faulted: tables are padded,
and an untrained row may well be zero.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from hashing.base.errors import EngramError
from table.checkpoints.family import read_checkpoint
from table.faults import RowFaults
from table.recoding import EncodedRows
from table.store.checksum import BLOCK_BYTES, flipped_byte
from table.store.manifest import Manifest, canonical_path, checksum_path, origin_path, read_manifest, row_step, shard_path
from table.store.parts import scratch
from table.store.store import TableStore
from table.store.writer import PIECE_BYTES, THREADS, Progress, quiet
from table.store.zarr_metadata import group_json


@dataclass(slots=True)
class Verification:
    """What is wrong with a store or a checkpoint, and what is only remarkable."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_store(path: Path) -> bool:
    return (path / "zarr.json").is_file() or path.suffix == ".zarr"


def verify(path: Path, full: bool = False, tokenizer: Path | None = None, progress: Progress = quiet) -> Verification:
    """Examines a store or a checkpoint folder. Raises EngramError only when there is nothing at `path`."""
    if not path.is_dir():
        raise EngramError(f"no such folder: {path}", hint="name a table store or a checkpoint's folder")
    try:
        return _verify_store(path, full, progress) if is_store(path) else _verify_checkpoint(path, full, tokenizer, progress)
    except EngramError as e:
        return Verification([str(e)])


def _verify_store(path: Path, full: bool, progress: Progress) -> Verification:
    manifest = read_manifest(path)
    result = Verification(list(_metadata_faults(path, manifest)))
    if result.faults:
        return result
    store = TableStore.open(path)
    if len(store.mapping) and int(store.mapping.max()) >= store.spec.canonical_size:
        found = int(store.mapping.max()) + 1
        result.faults.append(f"the canonical map has {found} ids, the hash spec {store.spec.canonical_size}")
    for layer in manifest.layers:
        sound = [
            shard for shard in sorted(manifest.layers[layer].shards) if not _add(result, _shard_fault(store, layer, shard))
        ]
        if full:
            _scan_shards(store, layer, sound, result, progress)
    for position in range(len(manifest.origin_files)):
        _add(result, _origin_fault(store, position, full))
    return result


def _origin_fault(store: TableStore, position: int, full: bool) -> str | None:
    """What is wrong with what the store keeps of a checkpoint's file: with its size, or with its bytes."""
    file, path = store.manifest.origin_files[position], origin_path(store.path, position)
    if not path.is_file() or path.stat().st_size != file.kept_bytes:
        return f"what was kept of {file.name} is missing, or is not {file.kept_bytes:,} bytes long ({path})"
    try:
        if full:
            store.kept_path(position)
    except EngramError as e:
        return str(e)
    return None


def _add(result: Verification, fault: str | None) -> bool:
    if fault is not None:
        result.faults.append(fault)
    return fault is not None


def _metadata_faults(path: Path, manifest: Manifest) -> Iterator[str]:
    """Everything but the rows: the `zarr.json` files byte for byte, and files that should not or should be there."""
    expected = {path / folder / "zarr.json": content for folder, content in manifest.nodes()}
    expected[path / "zarr.json"] = group_json({"engram": manifest.to_json()})
    for file, content in expected.items():
        if not file.is_file():
            yield f"{file} is missing"
        elif file.read_bytes() != content:
            yield f"{file} was altered: it is not what the manifest makes it"
    data = {canonical_path(path)} if manifest.canonical else set()
    data |= {origin_path(path, position) for position in range(len(manifest.origin_files))}
    for layer, cut in manifest.layers.items():
        data |= {place(path, layer, shard) for shard in cut.shards for place in (shard_path, checksum_path)}
    for file in sorted({file for file in path.rglob("*") if not file.is_dir()} - data - set(expected)):
        yield f"{file} does not belong to the store"


def _shard_fault(store: TableStore, layer: int, shard: int) -> str | None:
    """What is wrong with a shard's file or its checksums, at a glance."""
    path, expected = shard_path(store.path, layer, shard), store.manifest.shard_bytes(layer)
    if not path.is_file():
        return f"layer {layer}, shard {shard}: missing"
    if (found := path.stat().st_size) != expected:
        return f"layer {layer}, shard {shard}: {found:,} bytes, expected {expected:,}"
    try:
        store.checksums(layer, shard)
    except EngramError as e:
        return str(e)
    return None


def _scan_shards(store: TableStore, layer: int, shards: list[int], result: Verification, progress: Progress) -> None:
    """Every byte of shards whose size is right."""
    rows = RowFaults(store.encoding, store.head_dim)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="verify") as threads:
        for fault, found in threads.map(lambda shard: _scan_shard(store, layer, shard, progress), shards):
            _add(result, fault)
            rows.add(found)
    per_shard = store.manifest.layers[layer].shard_rows
    result.faults += [f"layer {layer}, shard {row // per_shard}: row {row:,} {what}" for row, what in rows.found()]
    if rows.zero_rows:
        result.notes.append(f"layer {layer}: {rows.zero_rows:,} rows of zeros")


def _scan_shard(store: TableStore, layer: int, shard: int, progress: Progress) -> tuple[str | None, RowFaults]:
    """The first damage in a shard, by its checksums, and what is wrong with its rows; each byte is read once."""
    kept, row_bytes = store.checksums(layer, shard), store.row_bytes
    shard_rows = store.manifest.layers[layer].shard_rows
    first = shard * shard_rows
    count = min(shard_rows, store.spec.rows(layer) - first)
    step = row_step(row_bytes)
    buffer = scratch(max(1, PIECE_BYTES // row_bytes // step) * step, row_bytes)
    rows = RowFaults(store.encoding, store.head_dim)
    damage = None
    for done in range(0, shard_rows, len(buffer)):
        piece = buffer[: shard_rows - done]
        store.read_records(layer, first + done, piece)
        block = done * row_bytes // BLOCK_BYTES
        sums = rows.scan_and_sum(first + done, piece, max(0, min(len(piece), count - done)))
        differs = np.flatnonzero(sums != kept[block : block + len(sums)])
        if len(differs) and damage is None:
            place = int(differs[0])
            damage = _damage(block + place, int(kept[block + place]), int(sums[place]), row_bytes, first, count)
        progress(piece.nbytes)
    return (None if damage is None else f"layer {layer}, shard {shard}: {damage}"), rows


def _damage(block: int, kept: int, found: int, row_bytes: int, first: int, rows: int) -> str:
    """Where a shard's block differs from its checksum: the row itself if one bit did. The shard has `rows` from `first` on."""
    begin = block * BLOCK_BYTES
    byte = flipped_byte(kept, found, BLOCK_BYTES)
    if byte is None:
        last = (begin + BLOCK_BYTES - 1) // row_bytes
        return f"rows {first + begin // row_bytes:,} to {first + last:,}: the checksum is {found:08x}, expected {kept:08x}"
    row = (begin + byte) // row_bytes
    where = f"in byte {(begin + byte) % row_bytes} of the row" if row < rows else "in the padding after the last row"
    return f"row {first + row:,}: one bit is flipped, {where}"


def _verify_checkpoint(path: Path, full: bool, tokenizer: Path | None, progress: Progress) -> Verification:
    checkpoint = read_checkpoint(path, tokenizer)
    result = Verification(list(checkpoint.faults), list(checkpoint.notes))
    for layer in checkpoint.layers if full else ():
        rows = RowFaults(checkpoint.encoding, checkpoint.head_dim)
        source = checkpoint.rows(layer)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="verify") as threads:
            for found, count in threads.map(partial(_scan_piece, source), source.pieces()):
                rows.add(found)
                progress(count)
        result.faults += [f"layer {layer}: row {row:,} {what}" for row, what in rows.found()]
        if rows.zero_rows:
            result.notes.append(f"layer {layer}: {rows.zero_rows:,} rows of zeros")
    return result


def _scan_piece(source: EncodedRows, piece: tuple[int, int]) -> tuple[RowFaults, int]:
    """What is wrong with rows of a checkpoint, and how many bytes they are."""
    first, count = piece
    records = np.empty((count, source.encoding.row_bytes(source.head_dim)), np.uint8)
    source.read(first, records)
    rows = RowFaults(source.encoding, source.head_dim)
    rows.scan(first, records)
    return rows, records.nbytes
