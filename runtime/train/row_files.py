"""Row files: how a checkpoint keeps tables and moments at the cost of what has changed; `checkpoint.py` specifies them.

Where several processes train, each writes what belongs to its rows, and no file says whose it was: any number of processes may
go on.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from hashing.spec import HashSpec
from hashing.vocab import CanonicalVocab
from runtime.checkpoints import BASE, MOMENTS, TABLES, Checkpoint, changes_step
from runtime.tensor_file import save_tensors, translated
from runtime.train.disk_rows import DiskRows
from runtime.train.peers import Peers
from runtime.train.row_table import RowTable
from runtime.train.state import ROWS_AT_ONCE, State
from table.encodings.encoding import ENCODINGS, Records
from table.store.manifest import Manifest, cut_layers
from table.store.store import TableStore
from table.store.writer import StoreWriter

FOLDED_SHARE = 0.5  # of tables and moments, that changes may take before all is written anew
NUMBER_BYTES = 8  # of a row's number in a file of changes


def save_rows(
    folder: Path,
    before: Checkpoint | None,
    state: State,
    changed: Mapping[int, Tensor],
    spec: HashSpec,
    vocab: CanonicalVocab,
    whole: bool,
    peers: Peers,
) -> None:
    """Into the folder of a checkpoint: tables where it is to be whole, and what has changed since the one before."""
    checkpoint = Checkpoint(folder)
    if before is None or _changes_are_many(state, changed, before, peers):
        _save_tables(state, folder, spec, vocab, peers)
        if state.step:
            _save_moments(state, checkpoint, peers)
        return
    if whole:
        _save_tables(state, folder, spec, vocab, peers)
    with peers.together():
        if peers.is_first:
            if not whole:
                shutil.copytree(before.store_path, folder / BASE, copy_function=os.link)
            for path in [*before.changes(), *before.moments(), *before.folder.glob(MOMENTS)]:
                _link(path, folder / path.relative_to(before.folder))
        for layer, rows in changed.items():
            paths = (checkpoint.changes_path(layer, int(piece[0])) for piece in _pieces(rows))
            _save_pieces(state, layer, rows, paths, weights=not whole)


def _changes_are_many(state: State, changed: Mapping[int, Tensor], before: Checkpoint, peers: Peers) -> bool:
    """Whether they would take more than their share of what all rows do."""
    row_bytes = {
        layer: sum(a.nbytes for a in table.state().values()) // len(table.weight) for layer, table in state.tables.items()
    }
    new = sum((row_bytes[layer] + NUMBER_BYTES) * len(rows) for layer, rows in changed.items())
    everything = sum(row_bytes[layer] * len(table.weight) for layer, table in state.tables.items())
    new, everything = peers.total(np.array([new, everything])).tolist()
    old = sum(path.stat().st_size for path in before.changes())
    return bool(old + new > FOLDED_SHARE * everything)


def _save_tables(state: State, folder: Path, spec: HashSpec, vocab: CanonicalVocab, peers: Peers) -> None:
    """Each process writes the shards whose first row is its own, with what other processes have of the last."""
    writer = _writer(folder, spec, vocab, next(iter(state.tables.values())).weight.shape[1], state.step)
    shards, ends = {}, {}
    for layer, table in state.tables.items():
        size, after = writer.manifest.layers[layer].shard_rows, table.first + len(table.weight)
        shards[layer] = range(-(-table.first // size), -(-after // size))
        last = min(shards[layer].stop * size, spec.rows(layer)) if shards[layer] else after
        ends[layer] = np.arange(after, last).reshape(1, -1, 1)
    others = state.rows.fetch(ends) if peers.are_many else None
    with ExitStack() as first:
        with peers.together():
            if peers.is_first:
                first.enter_context(writer)
        with peers.together():
            for layer, table in state.tables.items():
                end = others(layer) if others else None
                writer.write_layer(layer, _Weights(table, end), shards=shards[layer])
        with peers.together():
            if peers.is_first:
                writer.finish()


def _writer(folder: Path, spec: HashSpec, vocab: CanonicalVocab, head_dim: int, step: int) -> StoreWriter:
    encoding = ENCODINGS["float32"]
    manifest = Manifest(encoding, head_dim, spec, cut_layers(spec, encoding, head_dim), step)
    return StoreWriter(folder / TABLES, manifest, vocab.mapping)


def link_disk_rows(folder: Path, rows: DiskRows) -> None:
    """Into the folder of a checkpoint: the files of rows on disk, once the drive has them."""
    rows.sync()
    rows.link(Checkpoint(folder).rows_folder)


def save_disk_tables(folder: Path, rows: DiskRows, spec: HashSpec, vocab: CanonicalVocab, step: int) -> None:
    """Into the folder of a checkpoint: the tables, which makes it whole."""
    rows.written()
    with _writer(folder, spec, vocab, rows.files[spec.layers[0]].head_dim, step) as writer:
        for layer in spec.layers:
            writer.write_layer(layer, rows.files[layer].fill)
        writer.finish()


class _Weights:
    """Fills records with a table's weights, and with those of rows `end` (1, N, head_dim) that follow on its own."""

    def __init__(self, table: RowTable, end: Tensor | None) -> None:
        self._first, self._weight = table.first, table.weight.cpu().numpy()
        self._end = np.empty((0, self._weight.shape[1]), np.float32) if end is None else end[0].cpu().numpy()

    def __call__(self, first: int, records: Records) -> None:
        begin, out = first - self._first, records.view("<f4")
        own = self._weight[begin : begin + len(out)]
        out[: len(own)] = own
        after = max(0, begin - len(self._weight))
        out[len(own) :] = self._end[after : after + len(out) - len(own)]


def _save_moments(state: State, checkpoint: Checkpoint, peers: Peers) -> None:
    """Of a process alone all moments in one file; of many, those of rows that were ever moved."""
    if not peers.are_many:
        arrays = {
            f"layers/{layer}/{name}": array
            for layer, table in state.tables.items()
            for name, array in table.state().items()
            if name != "weight"
        }
        save_tensors(arrays, checkpoint.folder / MOMENTS, {})
        return
    with peers.together():
        for layer, table in state.tables.items():
            rows = table.state()["updates"].nonzero().flatten() + table.first
            paths = (checkpoint.moments_path(layer, int(piece[0])) for piece in _pieces(rows))
            _save_pieces(state, layer, rows, paths, weights=False)


def _pieces(rows: Tensor) -> tuple[Tensor, ...]:
    """Few enough rows each to be copied in memory."""
    return torch.split(rows, ROWS_AT_ONCE) if len(rows) else ()


def _save_pieces(state: State, layer: int, rows: Tensor, paths: Iterable[Path], weights: bool) -> None:
    """What belongs to rows, each piece of them into a file that is named by its first row."""
    table = state.tables[layer]
    arrays = {name: array for name, array in table.state().items() if weights or name != "weight"}
    for piece, path in zip(_pieces(rows), paths, strict=True):
        path.parent.mkdir(exist_ok=True)
        tensors = {f"layers/{layer}/{name}": array.index_select(0, piece - table.first) for name, array in arrays.items()}
        save_tensors({f"layers/{layer}/rows": piece, **tensors}, path, {})


def _link(path: Path, second: Path) -> None:
    second.parent.mkdir(exist_ok=True)
    os.link(path, second)


@torch.no_grad()
def load_rows(checkpoint: Checkpoint, tables: Mapping[int, RowTable]) -> None:
    """Puts a checkpoint's tables and moments into tables, or ranges of them, that are as they begin."""
    store = TableStore.open(checkpoint.store_path)
    assert store.step is not None, "a training wrote it"
    for layer, table in tables.items():
        _load_weight(store.layer(layer)[table.first : table.first + len(table.weight)], table.weight)
    for path in checkpoint.row_files():
        has_later_weights = changes_step(path) > store.step
        with translated(path), safe_open(path, "pt") as file:
            names = set(file.keys())
            for layer, table in tables.items():
                rows = file.get_tensor(f"layers/{layer}/rows") if f"layers/{layer}/rows" in names else None
                for name, array in table.state().items():
                    if (key := f"layers/{layer}/{name}") in names and (name != "weight" or has_later_weights):
                        _put(array, table.first, rows, file.get_slice(key))


def _load_weight(rows: NDArray[np.float32], weight: Tensor) -> None:
    for first in range(0, len(rows), ROWS_AT_ONCE):
        piece = rows[first : first + ROWS_AT_ONCE]
        weight[first : first + len(piece)] = torch.from_numpy(piece.copy())


def _put(array: Tensor, first: int, rows: Tensor | None, values: Any) -> None:
    """Sets those of `rows` that an array holds from `first` on, or with None all that it holds, to a slice of a file."""
    if rows is None:
        array.copy_(values[first : first + len(array)])
        return
    begin, end = torch.searchsorted(rows, torch.tensor([first, first + len(array)])).tolist()
    array.index_copy_(0, (rows[begin:end] - first).to(array.device), values[begin:end].to(array.device))
