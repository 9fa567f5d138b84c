"""A layer's table while it is trained: unique rows are the leaf.

A step reads the batch's unique rows, differentiates with respect to those, and writes those back with what its rule keeps of
them (`row_rules.py`). Nothing in a step depends on how many rows the table has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from runtime.config import RowRule
from runtime.train.leaf import Leaf
from runtime.train.leaf_kernel import unique_rows
from runtime.train.row_rules import Gradients, Rule, new_rule
from runtime.vectors import LayerRows, Vectors


@dataclass(frozen=True, slots=True)
class RowTable:
    weight: Tensor  # (rows, head_dim)
    rule: Rule

    @classmethod
    def create(
        cls,
        rows: int,
        head_dim: int,
        std: float,
        seed: int,
        device: torch.device,
        rule: RowRule = "adam",
        momentum: float | None = None,
    ) -> "RowTable":
        """Rows drawn with a deviation `std`, and nothing yet of what the rule keeps; without `momentum`, the rule's own."""
        generator = torch.Generator().manual_seed(seed)
        weight = torch.empty(rows, head_dim).normal_(0, std, generator=generator).to(device)
        return cls(weight, new_rule(weight, rule, momentum))

    def state(self) -> dict[str, Tensor]:
        """Everything that training changes, by name; the first axis of each tensor is the rows."""
        return {"weight": self.weight, **self.rule.state()}

    def equalise(self, firsts: Sequence[int]) -> None:
        """Gives every row the vector of the first of its head; heads begin at the rows `firsts`, ascending."""
        for first, end in pairwise([*firsts, len(self.weight)]):
            self.weight[first:end] = self.weight[first].clone()

    def vectors(self, rows: NDArray[np.signedinteger]) -> Tensor:
        """(B, T, columns·head_dim) The vectors of rows (B, T, columns)."""
        return functional.embedding(torch.from_numpy(rows).to(self.weight.device), self.weight).flatten(2)

    def read(self, rows: NDArray[np.signedinteger]) -> Leaf:
        """The leaf of a batch's rows (B, T, columns)."""
        if self.weight.is_cpu:
            found = unique_rows(rows.reshape(-1), len(self.weight).bit_length())
            unique, inverse = (torch.from_numpy(array) for array in found)
        else:
            unique, inverse = torch.unique(torch.from_numpy(rows).to(self.weight.device), return_inverse=True)
        return Leaf(unique, self.weight.index_select(0, unique).requires_grad_(), inverse.view(rows.shape))

    @torch.no_grad()
    def reread(self, leaf: Leaf, positions: Tensor) -> None:
        """Sets the vectors of a leaf at some positions of its rows to what the table has now."""
        leaf.vectors.index_copy_(0, positions, self.weight.index_select(0, leaf.rows[positions]))

    @torch.no_grad()
    def step(self, leaf: Leaf, learning_rate: float) -> None:
        """Moves the leaf's rows by their gradient, which it may overwrite."""
        assert leaf.vectors.grad is not None, "backward comes first"
        self.rule.step(self.weight, Gradients(leaf.rows, leaf.vectors.detach(), leaf.vectors.grad), learning_rate)


@dataclass(frozen=True, slots=True)
class RowTables:
    """The placement of rows that are being trained: every layer's table, read as it is now and without gradients."""

    tables: Mapping[int, RowTable]

    @property
    def table_bytes(self) -> int:
        return sum(table.weight.nbytes for table in self.tables.values())

    def fetch(self, rows: LayerRows) -> Vectors:
        return lambda layer: self.tables[layer].vectors(rows[layer])
