"""How the rows of a batch move by their gradients, and what is kept of each row for that.

A rule sees the rows that a batch reads, once each, and touches no others: what it keeps of a row stays as the row's last step
left it. Of every row it counts the steps that moved it (`updates`). There is no weight decay. On a CPU a rule is compiled
(`row_kernel.py`); the same in torch operations serves any other device, and is what tests hold the compiled form against.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.config import RowRule
from runtime.train.row_kernel import adam_rows, rowwise_adam_rows, sinkhorn_rows

BETAS = (0.9, 0.95)
EPS = 1e-10
BALANCED_MOMENTUM = 0.95
LEAST_NORM = 1e-3  # of the mean norm: a row whose momentum is no longer is not moved
DIVISIONS = 11  # by the norms of rows and columns in turn, rows first and last
BALANCED_RMS = 0.18  # of a row's step, times the learning rate
DIVISION_EPS = 1e-20


@cache
def corrections(beta: float) -> NDArray[np.float64]:
    """1 / (1 - β^n) for n updates, from n = 1 (the first number stands for none) to where it is 1 in float32."""
    count = 2 if beta == 0 else 2 + int(np.log(1e-9) / np.log(beta))
    bias = np.append(0.0, beta ** np.arange(1, count))
    return np.asarray(1 / (1 - bias))


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a step knows of the rows that it moves."""

    rows: Tensor  # (U,) int64, each once
    vectors: Tensor  # (U, D) the rows as they were read
    values: Tensor  # (U, D) with respect to them; a step may overwrite them

    def arrays(self) -> Iterator[NDArray[Any]]:
        return (tensor.numpy() for tensor in (self.rows, self.vectors, self.values))


class Rule(Protocol):
    def state(self) -> dict[str, Tensor]:
        """What is kept of the rows, by name; the first axis of each tensor is the rows."""

    def step(self, weight: Tensor, gradients: Gradients, rate: float) -> None:
        """Moves the rows of the table `weight` (R, D) that have gradients."""


@dataclass(frozen=True, slots=True)
class AdamRows:
    """Adam, as if each row were a parameter of its own that takes a step whenever a batch reads it.

    A row first read late in a training has the bias correction of a first step, and one that is not read for a while goes on
    from the moments it had. Adam over the whole table would give an unread row a gradient of zero: after k steps its moments
    would be β1^k and β2^k times these, and meanwhile it would have moved on by them.
    """

    moment: Tensor | None  # (R, D) running mean of gradients; None where β1 is 0, since it is the gradient
    square: Tensor  # running mean of their squares: (R, D), or (R, 1), of the mean over a row
    updates: Tensor  # (R,) float32
    betas: tuple[float, float]

    @classmethod
    def new(cls, weight: Tensor, rowwise: bool, beta1: float) -> "AdamRows":
        """For the table `weight`; `rowwise` keeps one second moment a row."""
        square = torch.zeros_like(weight[:, :1] if rowwise else weight)
        return cls(torch.zeros_like(weight) if beta1 else None, square, weight.new_zeros(len(weight)), (beta1, BETAS[1]))

    def state(self) -> dict[str, Tensor]:
        moment = {} if self.moment is None else {"moment": self.moment}
        return {**moment, "square": self.square, "updates": self.updates}

    def step(self, weight: Tensor, gradients: Gradients, rate: float) -> None:
        if not weight.is_cpu:
            self.step_in_torch(weight, gradients, rate)
            return
        kernel = adam_rows if self.square.shape == weight.shape else rowwise_adam_rows
        moment = None if self.moment is None else self.moment.numpy()
        tables = weight.numpy(), moment, self.square.numpy(), self.updates.numpy()
        kernel(*tables, *gradients.arrays(), rate, self.betas, tuple(map(corrections, self.betas)), EPS)

    def step_in_torch(self, weight: Tensor, gradients: Gradients, rate: float) -> None:
        rows, values, (beta1, beta2) = gradients.rows, gradients.values, self.betas
        power = values.square() if self.square.shape == weight.shape else values.square().mean(1, keepdim=True)
        updates = self.updates.index_select(0, rows) + 1
        moment = values if self.moment is None else self.moment.index_select(0, rows).lerp_(values, 1 - beta1)
        square = self.square.index_select(0, rows).lerp_(power, 1 - beta2)
        root = (square / (1 - beta2**updates)[:, None]).sqrt_().add_(EPS)
        new = gradients.vectors.sub(moment / (1 - beta1**updates)[:, None] / root, alpha=rate)
        kept = {"weight": weight, **self.state()}
        for name, value in (("weight", new), ("moment", moment), ("square", square), ("updates", updates)):
            if name in kept:
                kept[name].index_copy_(0, rows, value)


@dataclass(slots=True)
class SinkhornRows:
    """Momentum, balanced over rows and columns (DeepSeek-V4.1), among the rows that a batch reads.

        m ← μ m + (1 − μ) g        u = (1 − μ) g + μ m        rows of u no longer than a thousandth of the mean: 0
        11 times in turn: the rows of u divided by their norms, its columns by theirs
        W ← W − 0.18 · rate · sqrt(D) · u

    The published rule does that to the whole table at every step. For an unread row g is 0, so m after k steps is μ^k times
    what it was: that is made up for when the row is read next, and m is then what the published rule has. Left out is what else
    it does to unread rows: it goes on moving them by the full distance, since balancing undoes the decay, until their momentum
    is a thousandth of the mean; and they take part in the norms of the columns.
    """

    moment: Tensor  # (R, D) m, as the row's last step left it
    last: Tensor  # (R,) int32, the number of that step, from 1; 0 for a row that was never read
    updates: Tensor  # (R,) float32
    momentum: float  # μ, V4.1's is 0.95
    steps: int | None = None  # that the table has taken; None until it takes one, since training may go on from a checkpoint

    @classmethod
    def new(cls, weight: Tensor, momentum: float) -> "SinkhornRows":
        rows = len(weight)
        return cls(torch.zeros_like(weight), weight.new_zeros(rows, dtype=torch.int32), weight.new_zeros(rows), momentum)

    def state(self) -> dict[str, Tensor]:
        return {"moment": self.moment, "last": self.last, "updates": self.updates}

    def step(self, weight: Tensor, gradients: Gradients, rate: float) -> None:
        if not weight.is_cpu:
            self.step_in_torch(weight, gradients, rate)
            return
        tables = (tensor.numpy() for tensor in (weight, *self.state().values()))
        constants = self.momentum, self._next(), LEAST_NORM, DIVISIONS
        sinkhorn_rows(*tables, *gradients.arrays(), BALANCED_RMS * rate, *constants)

    def step_in_torch(self, weight: Tensor, gradients: Gradients, rate: float) -> None:
        rows, now = gradients.rows, self._next()
        updates = self.updates.index_select(0, rows) + 1
        last = self.last.index_select(0, rows)
        part = gradients.values * (1 - self.momentum)
        moment = self.moment.index_select(0, rows) * (self.momentum ** (now - last))[:, None] + part
        direction = balanced(part + self.momentum * moment)
        new = gradients.vectors.sub(direction, alpha=BALANCED_RMS * rate * weight.shape[1] ** 0.5)
        for kept, value in ((weight, new), (self.moment, moment), (self.updates, updates), (self.last, last.fill_(now))):
            kept.index_copy_(0, rows, value)

    def _next(self) -> int:
        """The number of the step being taken: every step reads some row, so the newest `last` is that of the one before."""
        self.steps = 1 + (int(self.last.max()) if self.steps is None else self.steps)
        return self.steps


def new_rule(weight: Tensor, rule: RowRule, momentum: float | None) -> Rule:
    """The rule of that name for the table `weight`, with nothing kept yet."""
    if rule == "sinkhorn":
        return SinkhornRows.new(weight, BALANCED_MOMENTUM if momentum is None else momentum)
    return AdamRows.new(weight, rule == "rowwise_adam", BETAS[0] if momentum is None else momentum)


def balanced(momentum: Tensor) -> Tensor:
    """A matrix (U, D) whose rows have norm 1, and whose columns have equal norms as nearly as DIVISIONS divisions make them."""
    norms = torch.linalg.vector_norm(momentum, dim=1, keepdim=True)
    direction = torch.where(norms > LEAST_NORM * norms.mean(), momentum, 0)
    for number in range(DIVISIONS):
        across = 1 - number % 2
        direction = direction / (torch.linalg.vector_norm(direction, dim=across, keepdim=True) + DIVISION_EPS)
    return direction
