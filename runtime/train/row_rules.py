"""How the rows of a batch move by their gradients, and what is kept of each row for that.

A rule sees the rows that a batch reads, once each, and touches no others: what it keeps of a row stays as the row's last step
left it. Of every row it counts the steps that moved it (`updates`). There is no weight decay. On a CPU a rule is compiled
(`row_kernel.py`); the same in torch operations serves any other device, and is what tests hold the compiled form against.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.config import RowRule
from runtime.train.peers import ALONE, Peers
from runtime.train.row_kernel import (
    adam_rows,
    column_shares,
    largest_shares,
    momentum_rows,
    move_balanced,
    row_norms,
    rowwise_adam_rows,
)

BETAS = (0.9, 0.95)
EPS = 1e-10
BALANCED_MOMENTUM = 0.95
LEAST_NORM = 1e-3  # of the mean norm: a row whose momentum is no longer is not moved
DIVISIONS = 11  # by the norms of rows and columns in turn, rows first and last
BALANCED_RMS = 0.18  # of a row's step, times the learning rate
DIVISION_EPS = 1e-20
WHOLE = 2.0**30  # what shares are rounded to parts of: sums over millions of rows are still whole numbers of float64

Floats = NDArray[np.float32]


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
    step: int  # the number of the step, from 1

    def arrays(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        return self.rows.numpy(), self.vectors.numpy(), self.values.numpy()


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


@dataclass(frozen=True, slots=True)
class LazyMomentum:
    """A running mean of each row's gradients, with a gradient of 0 for steps that do not read the row.

    What a row has missed since its last step is made up for when it is read next.
    """

    share: float  # that a step keeps of it
    moment: Tensor  # (R, D) as the row's last step left it
    last: Tensor  # (R,) int32, the number of that step; 0 for a row that was never read

    def ahead(self, gradients: Gradients) -> Tensor:
        """(U, D) The mean of the gradients and their running mean, a step ahead (Nesterov)."""
        if gradients.rows.is_cpu:
            rows, _, values = gradients.arrays()
            momentum_rows(self.moment.numpy(), self.last.numpy(), rows, values, self.share, gradients.step)
            return gradients.values
        return self.ahead_in_torch(gradients)

    def ahead_in_torch(self, gradients: Gradients) -> Tensor:
        rows, part = gradients.rows, gradients.values * (1 - self.share)
        kept = self.share ** (gradients.step - self.last.index_select(0, rows))
        moment = self.moment.index_select(0, rows) * kept[:, None] + part
        self.moment.index_copy_(0, rows, moment)
        self.last.index_fill_(0, rows, gradients.step)
        return part + self.share * moment


@dataclass(frozen=True, slots=True)
class SinkhornRows:
    """Momentum, balanced over rows and columns (DeepSeek-V4.1), among the rows that a batch reads.

        m ← μ m + (1 − μ) g        u = (1 − μ) g + μ m        rows of u no longer than a thousandth of the mean: 0
        11 times in turn: the rows of u divided by their norms, its columns by theirs
        W ← W − 0.18 · rate · sqrt(D) · u

    The published rule does that to the whole table at every step, with a gradient of 0 for unread rows. A row that is read has
    the m that it has there. Left out is what that does to unread rows: it goes on moving them by the full distance, since
    balancing undoes the decay of m, until their u is a thousandth of the mean; and they take part in the norms of the columns.
    """

    momentum: LazyMomentum | None  # None where μ is 0: u is the gradient
    updates: Tensor  # (R,) float32
    peers: Peers  # that hold the table's other rows, which the batch reads as well

    @classmethod
    def new(cls, weight: Tensor, share: float, peers: Peers) -> "SinkhornRows":
        updates = weight.new_zeros(len(weight))
        last = torch.zeros_like(updates, dtype=torch.int32)
        return cls(LazyMomentum(share, torch.zeros_like(weight), last) if share else None, updates, peers)

    def state(self) -> dict[str, Tensor]:
        momentum = {"moment": self.momentum.moment, "last": self.momentum.last} if self.momentum else {}
        return {**momentum, "updates": self.updates}

    def step(self, weight: Tensor, gradients: Gradients, rate: float) -> None:
        if not weight.is_cpu:
            self.step_in_torch(weight, gradients, rate)
            return
        ahead = self.momentum.ahead(gradients) if self.momentum else gradients.values
        (rows, vectors, _), directions = gradients.arrays(), ahead.numpy()
        norms = row_norms(directions)
        threshold = np.float32(LEAST_NORM * self._mean(norms))
        columns = self._columns(directions, norms, threshold)
        distance = BALANCED_RMS * rate * weight.shape[1] ** 0.5
        move_balanced(weight.numpy(), self.updates.numpy(), rows, vectors, directions, norms, threshold, columns, distance)

    def _mean(self, norms: Floats) -> float:
        """Of the norms of all rows that the batch reads, whoever holds them: the same sum in any order, of whole numbers."""
        (largest,) = self.peers.largest(norms.max(initial=0, keepdims=True).astype(np.float64))
        if largest == 0:
            return 0.0
        whole = np.rint(norms / largest * WHOLE)
        total, count = self.peers.total(np.array([whole.sum(), len(norms)]))
        return float(total / count * (largest / WHOLE))

    def _columns(self, directions: Floats, norms: Floats, threshold: np.float32) -> Floats:
        """(D,) The squares of what columns are multiplied with in the balanced matrix, whose rows have norm 1.

        Before the first division a column may be any number of times smaller than others, hence a factor of its own.
        """
        columns = np.ones(directions.shape[1], np.float32)
        shares = self.peers.largest(largest_shares(directions, norms, threshold))
        factors = WHOLE / np.where(shares > 0, shares, 1)
        for _ in range(DIVISIONS // 2):
            totals = self.peers.total(column_shares(directions, norms, threshold, columns, factors))
            columns = np.where(totals > 0, columns * factors / np.maximum(totals, 1), 0).astype(np.float32)
            factors = np.full_like(factors, WHOLE)
        return columns

    def step_in_torch(self, weight: Tensor, gradients: Gradients, rate: float) -> None:
        directions = self.momentum.ahead_in_torch(gradients) if self.momentum else gradients.values
        distance = BALANCED_RMS * rate * weight.shape[1] ** 0.5
        weight.index_copy_(0, gradients.rows, gradients.vectors.sub(balanced(directions, self.peers), alpha=distance))
        self.updates.index_add_(0, gradients.rows, torch.ones_like(gradients.rows, dtype=torch.float32))


def new_rule(weight: Tensor, rule: RowRule, momentum: float | None, peers: Peers = ALONE) -> Rule:
    """The rule of that name for the table `weight`, with nothing kept yet; `peers` hold its other rows."""
    if rule == "sinkhorn":
        return SinkhornRows.new(weight, BALANCED_MOMENTUM if momentum is None else momentum, peers)
    return AdamRows.new(weight, rule == "rowwise_adam", BETAS[0] if momentum is None else momentum)


def balanced(directions: Tensor, peers: Peers) -> Tensor:
    """A matrix (U, D) whose rows have norm 1, and whose columns have equal norms as nearly as DIVISIONS divisions make them.

    Its other rows are the peers'.
    """
    norms = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    total, count = peers.total_of(torch.stack([norms.sum(), norms.new_tensor(len(norms))]))
    directions = torch.where(norms > LEAST_NORM * total / count, directions, 0)
    for number in range(DIVISIONS):
        if number % 2:
            across = peers.total_of(directions.square().sum(0)).sqrt()
        else:
            across = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
        directions = directions / (across + DIVISION_EPS)
    return directions
