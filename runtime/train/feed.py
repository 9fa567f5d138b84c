"""Feed: the batches of a training, with the rows that they read and write, made ready a step ahead.

    step s      ── computes ──────────────────────────► writes its rows ─► step s+1
    worker      batch s+1: addressed, unique, gathered          └─► rows that both batches have are read again

Addresses follow from tokens alone, so that a batch's rows can be read before the step in front of it is done. What that step
still writes of them is known too, and read again when it is written: every number is as if each batch were read when its own
step begins.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashing.base.cores import CORES
from runtime.lookup import Addressing
from runtime.train.batches import Batches
from runtime.train.leaf import Leaf
from runtime.train.row_table import RowTable


@dataclass(frozen=True, slots=True)
class Batch:
    step: int
    inputs: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64
    leaves: Mapping[int, Leaf]  # of every layer with a memory
    shared: Mapping[int, Tensor]  # of each leaf's rows, which the step before writes as well

    def parts(self, count: int) -> "Iterator[Batch]":
        """Equal parts of the batch's sequences; gradients of each reach the rows of the whole."""
        size = len(self.inputs) // count
        for first in range(0, len(self.inputs), size):
            leaves = {layer: leaf.of_sequences(first, size) for layer, leaf in self.leaves.items()}
            inputs, targets = (tensor[first : first + size] for tensor in (self.inputs, self.targets))
            yield replace(self, inputs=inputs, targets=targets, leaves=leaves)


class Feed:
    """The batches in the order of their steps; `addressing` is None in a training without memory."""

    def __init__(
        self, batches: Batches, addressing: Addressing | None, tables: Mapping[int, RowTable], device: torch.device
    ) -> None:
        self._batches, self._addressing, self._tables, self._device = batches, addressing, tables, device
        self._next: Future[Batch] | None = None

    def take(self, step: int) -> Batch:
        """The batch of a step, whose rows are as they are now; the one after it is begun."""
        ready = self._next.result() if self._next else None
        batch = ready if ready and ready.step == step else self._made(step, {})
        self._next = _worker().submit(self._made, step + 1, batch.leaves)
        return batch

    def write(self, batch: Batch, learning_rate: float) -> None:
        """Updates the rows of the batch taken last, and reads those again that the next one has of them."""
        assert self._next is not None, "a batch is taken before it is written"
        following = self._next.result()  # it has read all it reads before anything is written
        list(_writers().map(lambda layer: self._tables[layer].step(batch.leaves[layer], learning_rate), batch.leaves))
        for layer, leaf in following.leaves.items():
            self._tables[layer].reread(leaf, following.shared[layer])

    def _made(self, step: int, before: Mapping[int, Leaf]) -> Batch:
        inputs, targets = self._batches.at(step)
        rows = self._addressing.addresses(inputs).rows if self._addressing else {}
        leaves = {layer: self._tables[layer].read(rows[layer]) for layer in rows}
        shared = {layer: _shared(leaves[layer].rows, leaf.rows) for layer, leaf in before.items()}
        return Batch(step, self._tensor(inputs), self._tensor(targets), leaves, shared)

    def _tensor(self, array: NDArray[np.signedinteger]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _shared(rows: Tensor, others: Tensor) -> Tensor:
    """Which positions of `rows` (U,) have a row that is one of `others`; both are ascending."""
    nearest = torch.searchsorted(others, rows).clamp_(max=len(others) - 1)
    return torch.nonzero(others[nearest] == rows).flatten()


@cache
def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="feed")


@cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, thread_name_prefix="rows")
