"""Where rows live while a model runs, and how they reach it.

`device` holds the tables on the compute device. `host` holds them in main memory and `disk` leaves them in the mapped
store; for both, a background thread gathers a step's rows as soon as its tokens are known, and the model waits only when it
gets to the layer. The vectors are the same numbers in all three, so the logits are too.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from runtime.model.language_model import Vectors
from table.store.gather import Table
from table.store.store import TableStore

PlacementName = Literal["device", "host", "disk"]
LayerRows = Mapping[int, NDArray[np.signedinteger]]  # layer → (B, T, columns)


class Placement(Protocol):
    def fetch(self, rows: LayerRows) -> Vectors:
        """Asks for rows of every layer at once; the answer gives each layer's (B, T, E), waiting if it has to."""


class DevicePlacement:
    def __init__(self, store: TableStore, device: torch.device) -> None:
        self._device = device
        self._tables = {layer: _decoded(store.table(layer)).to(device) for layer in store.spec.layers}

    def fetch(self, rows: LayerRows) -> Vectors:
        numbers = {layer: torch.from_numpy(array).to(self._device) for layer, array in rows.items()}
        return lambda layer: functional.embedding(numbers[layer], self._tables[layer]).flatten(2)


class BackgroundPlacement:
    def __init__(self, tables: Mapping[int, Table], device: torch.device) -> None:
        self._device = device
        self._tables = tables
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rows")

    def fetch(self, rows: LayerRows) -> Vectors:
        waiting = {layer: self._thread.submit(self._tables[layer].gather, array) for layer, array in rows.items()}
        return lambda layer: torch.from_numpy(waiting[layer].result()).to(self._device).flatten(2)


def place(store: TableStore, name: PlacementName, device: torch.device) -> Placement:
    if name == "device":
        return DevicePlacement(store, device)
    tables = {layer: store.table(layer) for layer in store.spec.layers}
    if name == "host":
        tables = {layer: replace(table, records=table.records.copy()) for layer, table in tables.items()}
    return BackgroundPlacement(tables, device)


def _decoded(table: Table) -> Tensor:
    """(rows, head_dim) float32"""
    return torch.from_numpy(table.gather(np.arange(table.rows)))


def offloaded(device: torch.device) -> PlacementName:
    """Out of the compute device: to main memory from a GPU, to disk on a machine that has only a CPU."""
    return "host" if device.type == "cuda" else "disk"
