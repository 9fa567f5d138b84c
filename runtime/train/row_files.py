"""Row files: how a checkpoint keeps tables and moments at the cost of what has changed; `checkpoint.py` specifies them."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashing.spec import HashSpec
from hashing.vocab import CanonicalVocab
from runtime.checkpoints import BASE, MOMENTS, TABLES, Checkpoint, changes_step
from runtime.tensor_file import load_tensors, save_tensors
from runtime.train.row_table import RowTable
from runtime.train.state import ROWS_AT_ONCE, State
from table.store.store import TableStore, write_store

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
) -> None:
    """Into the folder of a checkpoint: tables where it is to be whole, and what has changed since the one before."""
    if before is None or _changes_are_many(state, changed, before):
        _save_tables(state, folder, spec, vocab)
        if state.step:
            _save_moments(state, folder)
        return
    if whole:
        _save_tables(state, folder, spec, vocab)
    else:
        shutil.copytree(before.store_path, folder / BASE, copy_function=os.link)
    for path in [*before.changes(), *before.folder.glob(MOMENTS)]:
        _link(path, folder / path.relative_to(before.folder))
    for layer, rows in changed.items():
        _save_changes(state, Checkpoint(folder), layer, rows, weights=not whole)


def _changes_are_many(state: State, changed: Mapping[int, Tensor], before: Checkpoint) -> bool:
    """Whether they would take more than their share of what all rows do."""
    row_bytes = {
        layer: sum(a.nbytes for a in table.state().values()) // len(table.weight) for layer, table in state.tables.items()
    }
    new = sum((row_bytes[layer] + NUMBER_BYTES) * len(rows) for layer, rows in changed.items())
    old = sum(path.stat().st_size for path in before.changes())
    return old + new > FOLDED_SHARE * sum(row_bytes[layer] * len(table.weight) for layer, table in state.tables.items())


def _save_tables(state: State, folder: Path, spec: HashSpec, vocab: CanonicalVocab) -> None:
    weights = {layer: table.weight.cpu().numpy() for layer, table in state.tables.items()}
    write_store(folder / TABLES, spec, vocab.mapping, weights, state.step)


def _save_moments(state: State, folder: Path) -> None:
    arrays = {
        f"layers/{layer}/{name}": array
        for layer, table in state.tables.items()
        for name, array in table.state().items()
        if name != "weight"
    }
    save_tensors(arrays, folder / MOMENTS, {})


def _save_changes(state: State, checkpoint: Checkpoint, layer: int, changed: Tensor, weights: bool) -> None:
    """A file has few enough rows to be copied in memory."""
    arrays = {name: array for name, array in state.tables[layer].state().items() if weights or name != "weight"}
    for number, rows in enumerate(torch.split(changed, ROWS_AT_ONCE) if len(changed) else ()):
        path = checkpoint.changes_path(layer, number)
        path.parent.mkdir(exist_ok=True)
        tensors = {f"layers/{layer}/{name}": array.index_select(0, rows) for name, array in arrays.items()}
        save_tensors({f"layers/{layer}/rows": rows, **tensors}, path, {})


def _link(path: Path, second: Path) -> None:
    second.parent.mkdir(exist_ok=True)
    os.link(path, second)


@torch.no_grad()
def load_rows(checkpoint: Checkpoint, tables: Mapping[int, RowTable]) -> None:
    """Puts a checkpoint's tables and moments into tables that are as they begin."""
    store = TableStore.open(checkpoint.store_path)
    assert store.step is not None, "a training wrote it"
    for layer, table in tables.items():
        _load_weight(store.layer(layer), table.weight)
    for path in checkpoint.row_files():
        tensors, _ = load_tensors(path)
        has_later_weights = changes_step(path) > store.step
        for layer, table in tables.items():
            rows = tensors.get(f"layers/{layer}/rows")
            for name, array in table.state().items():
                found = tensors.get(f"layers/{layer}/{name}")
                if found is not None and (name != "weight" or has_later_weights):
                    _put(array, rows, found)


def _load_weight(rows: NDArray[np.float32], weight: Tensor) -> None:
    for first in range(0, len(rows), ROWS_AT_ONCE):
        piece = rows[first : first + ROWS_AT_ONCE]
        weight[first : first + len(piece)] = torch.from_numpy(piece.copy())


def _put(array: Tensor, rows: Tensor | None, values: Tensor) -> None:
    """Sets rows of an array, or with None all of them."""
    if rows is None:
        array.copy_(values)
    else:
        array.index_copy_(0, rows.to(array.device), values.to(array.device))
