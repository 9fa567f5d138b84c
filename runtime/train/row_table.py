"""A layer's table while it is trained: unique rows are the leaf.

A step reads the batch's unique rows, differentiates with respect to those, and writes those back with what its rule keeps of
them (`row_rules.py`). Nothing in a step depends on how many rows the table has.
"""

from collections.abc import Sequence
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
from runtime.train.new_rows import NewRows
from runtime.train.peers import ALONE, Peers
from runtime.train.row_rules import Gradients, Rule, new_rule


@dataclass(frozen=True, slots=True)
class RowTable:
    """A table, or a range of its rows; rows are numbered as in the whole table everywhere but in the tensors."""

    weight: Tensor  # (rows, head_dim)
    rule: Rule
    new_rows: NewRows
    first: int = 0  # the number of its first row

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
        first: int = 0,
        peers: Peers = ALONE,
    ) -> "RowTable":
        """So many rows from `first` on, drawn with a deviation `std`, and nothing yet of what the rule keeps.

        Without `momentum`, it is the rule's own; `peers` hold the table's other rows.
        """
        new_rows, drawn = NewRows(seed, std), np.empty((rows, head_dim), np.float32)
        new_rows.fill_range(first, drawn)
        weight = torch.from_numpy(drawn).to(device)
        return cls(weight, new_rule(weight, rule, momentum, peers), new_rows, first)

    def state(self) -> dict[str, Tensor]:
        """Everything that training changes, by name; the first axis of each tensor is the rows."""
        return {"weight": self.weight, **self.rule.state()}

    def equalise(self, firsts: Sequence[int]) -> None:
        """Gives every row the vector that the first of its head was drawn with; heads begin at the rows `firsts`, ascending."""
        end = self.first + len(self.weight)
        for head, following in pairwise([*firsts, max(end, firsts[-1])]):
            vector = np.empty((1, self.weight.shape[1]), np.float32)
            self.new_rows.fill(np.array([head]), vector)
            own = slice(max(0, head - self.first), max(0, following - self.first))
            self.weight[own] = torch.from_numpy(vector)

    def vectors(self, rows: NDArray[np.signedinteger]) -> Tensor:
        """(B, T, columns·head_dim) The vectors of rows (B, T, columns), which are all here."""
        return functional.embedding(torch.from_numpy(rows - self.first).to(self.weight.device), self.weight).flatten(2)

    def read(self, rows: NDArray[np.signedinteger]) -> Leaf:
        """The leaf of a batch's rows, of any shape."""
        unique, inverse = distinct(torch.from_numpy(rows).to(self.weight.device))
        return Leaf(unique, self.gathered(unique).requires_grad_(), inverse)

    def gathered(self, rows: Tensor) -> Tensor:
        """(U, head_dim) The vectors of rows (U,)."""
        return self.weight.index_select(0, rows - self.first if self.first else rows)

    @torch.no_grad()
    def reread(self, leaf: Leaf, positions: Tensor) -> None:
        """Sets the vectors of a leaf at some positions of its rows to what the table has now."""
        leaf.vectors.index_copy_(0, positions, self.gathered(leaf.rows[positions]))

    def step(self, leaf: Leaf, learning_rate: float, step: int) -> None:
        """Moves the leaf's rows by their gradient, which it may overwrite, in a step of that number, from 1."""
        self.move(leaf.rows, leaf.vectors, leaf.gradient, learning_rate, step)

    @torch.no_grad()
    def move(self, rows: Tensor, vectors: Tensor, gradients: Tensor, learning_rate: float, step: int) -> None:
        """The same for rows (U,), each once, with the vectors (U, head_dim) that they have now."""
        own = rows - self.first if self.first else rows
        self.rule.step(self.weight, Gradients(own, vectors.detach(), gradients, step), learning_rate)


def distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct numbers (U,) of rows of any shape, ascending, and the index of each row's among them, in that shape."""
    if not rows.is_cpu:
        return torch.unique(rows, return_inverse=True)  # type: ignore[no-any-return]
    flat = rows.reshape(-1).numpy()
    unique, inverse = (torch.from_numpy(array) for array in unique_rows(flat, int(flat.max(initial=0)).bit_length()))
    return unique, inverse.view(rows.shape)
