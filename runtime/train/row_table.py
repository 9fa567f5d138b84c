"""A layer's table while it is trained: unique rows are the leaf.

A step reads the batch's unique rows, differentiates with respect to those, and writes those back with their Adam moments.
Nothing in a step depends on how many rows the table has. Every row counts its own updates, so that the bias correction of a
row touched for the first time late in training is that of a first step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from runtime.train.row_kernel import adam_rows
from runtime.vectors import LayerRows, Vectors

BETAS = (0.9, 0.95)
EPS = 1e-10
ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The unique rows of a batch."""

    rows: Tensor  # (U,) int64, ascending
    vectors: Tensor  # (U, head_dim), requires grad
    inverse: Tensor  # (B, T, columns) index into the unique rows

    def batch_vectors(self, part: slice = ALL) -> Tensor:
        """The vectors of the batch, or of part of its sequences (B, T, columns·head_dim): gradients reach the unique rows."""
        return functional.embedding(self.inverse[part], self.vectors).flatten(2)


@dataclass(frozen=True, slots=True)
class RowTable:
    weight: Tensor  # (rows, head_dim)
    moment: Tensor  # (rows, head_dim) running mean of gradients
    square: Tensor  # (rows, head_dim) running mean of their squares
    updates: Tensor  # (rows,) float32, how often each row was touched

    @classmethod
    def create(cls, rows: int, head_dim: int, std: float, seed: int, device: torch.device) -> "RowTable":
        generator = torch.Generator().manual_seed(seed)
        weight = torch.empty(rows, head_dim).normal_(0, std, generator=generator).to(device)
        return cls(weight, torch.zeros_like(weight), torch.zeros_like(weight), torch.zeros(rows, device=device))

    def state(self) -> dict[str, Tensor]:
        """All that belongs to rows, by name; the first axis of each is rows."""
        return {"weight": self.weight, "moment": self.moment, "square": self.square, "updates": self.updates}

    def vectors(self, rows: NDArray[np.signedinteger]) -> Tensor:
        """(B, T, columns·head_dim) The vectors of rows (B, T, columns)."""
        return functional.embedding(torch.from_numpy(rows).to(self.weight.device), self.weight).flatten(2)

    def read(self, rows: NDArray[np.signedinteger]) -> Leaf:
        """The leaf of a batch's rows (B, T, columns)."""
        numbers = torch.from_numpy(rows).to(self.weight.device)
        unique, inverse = torch.unique(numbers, return_inverse=True)
        return Leaf(unique, self.weight.index_select(0, unique).requires_grad_(), inverse)

    @torch.no_grad()
    def step(self, leaf: Leaf, learning_rate: float) -> None:
        """One Adam step of the leaf's rows, by their gradient; no weight decay."""
        gradient = leaf.vectors.grad
        assert gradient is not None, "backward comes first"
        if self.weight.is_cpu:
            tables = (table.numpy() for table in (self.weight, self.moment, self.square, self.updates))
            given = (array.detach().numpy() for array in (leaf.rows, leaf.vectors, gradient))
            adam_rows(*tables, *given, learning_rate, BETAS, EPS)
        else:
            self._step(leaf.rows, leaf.vectors.detach(), gradient, learning_rate)

    def _step(self, rows: Tensor, vectors: Tensor, gradients: Tensor, learning_rate: float) -> None:
        """The same as `adam_rows` on any device."""
        beta1, beta2 = BETAS
        updates = self.updates.index_select(0, rows) + 1
        moment = self.moment.index_select(0, rows).lerp_(gradients, 1 - beta1)
        square = self.square.index_select(0, rows).mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        corrected = (square / (1 - beta2**updates)[:, None]).sqrt_().add_(EPS)
        new = vectors.sub(moment / (1 - beta1**updates)[:, None] / corrected, alpha=learning_rate)
        for kept, value in ((self.weight, new), (self.moment, moment), (self.square, square), (self.updates, updates)):
            kept.index_copy_(0, rows, value)


@dataclass(frozen=True, slots=True)
class RowTables:
    """The placement of rows that are being trained: every layer's table, read as it is now and without gradients."""

    tables: Mapping[int, RowTable]

    def fetch(self, rows: LayerRows) -> Vectors:
        return lambda layer: self.tables[layer].vectors(rows[layer])
