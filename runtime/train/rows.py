"""Rows: where a training's rows are, as its steps see them.

A batch's rows are asked for a step ahead, settled when its own step begins, and written when that ends. Rows that the step
before writes as well are as it wrote them.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from hashing.base.cores import CORES
from runtime.placement.placement import Placement
from runtime.train.leaf import Leaf
from runtime.train.row_table import RowTable
from runtime.vectors import LayerRows, Vectors


class BatchRows(Protocol):
    """The rows of a batch."""

    @property
    def leaves(self) -> Mapping[int, Leaf]:
        """Of every layer; their vectors count from `settle` on."""

    @property
    def moved(self) -> Mapping[int, Tensor]:
        """layer → (U,) int64 The rows of this process that the batch's step moves, ascending."""

    def settle(self) -> None:
        """Makes the leaves' vectors those that the tables have now."""

    def write(self, learning_rate: float, step: int) -> None:
        """Moves the rows by the leaves' gradients, which it may overwrite, in a step of that number, from 1."""


class Rows(Placement, Protocol):
    @property
    def tables(self) -> Mapping[int, RowTable]:
        """layer → what of its table this process has in memory."""

    @property
    def is_finite(self) -> bool:
        """False where a row was moved to what is infinite or NaN, as far as that was seen when it was."""

    def ask(self, rows: LayerRows, before: BatchRows | None) -> BatchRows:
        """Begins to read a batch's rows (B, T, columns) of every layer, beside the step of the batch `before`."""


class OwnBatchRows:
    def __init__(self, tables: Mapping[int, RowTable], rows: LayerRows, before: BatchRows | None) -> None:
        self._tables = tables
        self.leaves = {layer: tables[layer].read(numbers) for layer, numbers in rows.items()}
        written = before.leaves if before else {}
        self.shared = {layer: shared(self.leaves[layer].rows, leaf.rows) for layer, leaf in written.items()}

    @property
    def moved(self) -> dict[int, Tensor]:
        return {layer: leaf.rows for layer, leaf in self.leaves.items()}

    def settle(self) -> None:
        for layer, positions in self.shared.items():
            self._tables[layer].reread(self.leaves[layer], positions)

    def write(self, learning_rate: float, step: int) -> None:
        list(_writers().map(lambda layer: self._tables[layer].step(self.leaves[layer], learning_rate, step), self.leaves))


@dataclass(frozen=True, slots=True)
class OwnRows:
    """All rows of every layer's table in this process's memory, or its device's."""

    tables: Mapping[int, RowTable]
    is_finite = True

    @property
    def table_bytes(self) -> int:
        return sum(table.weight.nbytes for table in self.tables.values())

    def ask(self, rows: LayerRows, before: BatchRows | None) -> OwnBatchRows:
        return OwnBatchRows(self.tables, rows, before)

    def fetch(self, rows: LayerRows) -> Vectors:
        """The vectors of rows (B, T, columns), as they are now and without gradients."""
        return lambda layer: self.tables[layer].vectors(rows[layer])


def shared(rows: Tensor, others: Tensor) -> Tensor:
    """Which positions of `rows` (U,) have a row that is one of `others`; both are ascending."""
    nearest = torch.searchsorted(others, rows).clamp_(max=len(others) - 1)
    return torch.nonzero(others[nearest] == rows).flatten()


@cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, thread_name_prefix="rows")
