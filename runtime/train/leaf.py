"""Leaf: the unique rows of a batch, with respect to which a step differentiates."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from runtime.train.leaf_kernel import add_gradients


@dataclass(frozen=True, slots=True)
class Leaf:
    rows: Tensor  # (U,) int64, ascending
    vectors: Tensor  # (U, head_dim), requires grad
    inverse: Tensor  # (B, T, columns) index into the unique rows

    def of_sequences(self, first: int, count: int) -> "Leaf":
        """The same rows, read by some of the batch's sequences."""
        return replace(self, inverse=self.inverse[first : first + count])

    @property
    def gradient(self) -> Tensor:
        """(U, head_dim) With respect to the vectors."""
        assert self.vectors.grad is not None, "backward comes first"
        return self.vectors.grad

    def batch_vectors(self) -> Tensor:
        """The vectors of the batch (B, T, columns·head_dim), through which gradients reach the unique rows."""
        if not self.vectors.is_cpu:
            return functional.embedding(self.inverse, self.vectors).flatten(2)
        gathered: Tensor = _Gathered.apply(self.vectors, self.inverse)  # type: ignore[no-untyped-call]
        return gathered.flatten(2)


class _Gathered(torch.autograd.Function):
    """`functional.embedding`, whose backward pass on a CPU takes four times as long (docs/log.md)."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.shape = vectors.shape
        return functional.embedding(inverse, vectors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (inverse,) = ctx.saved_tensors
        return summed(gradient.reshape(-1, ctx.shape[1]), inverse.reshape(-1), ctx.shape[0]), None


def summed(gradients: Tensor, inverse: Tensor, count: int) -> Tensor:
    """(count, D) The sums of gradients (N, D) by the unique rows that `inverse` (N,) says, added in the order of positions."""
    sums = gradients.new_zeros(count, gradients.shape[1])
    if not sums.is_cpu:
        return sums.index_add_(0, inverse, gradients)
    add_gradients(gradients.numpy(), inverse.numpy(), sums.numpy())
    return sums
