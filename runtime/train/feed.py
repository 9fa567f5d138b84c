"""Feed: the batches of a training, with the rows that they read and write, made ready a step ahead.

    step s      ── computes ──────────────────────────► writes its rows ─► step s+1
    worker      batch s+1: addressed, unique, gathered          └─► rows that both batches have are read again

Addresses follow from tokens alone, so that a batch's rows can be read before the step in front of it is done. What that step
writes of them is known too, and read again once it is written: every number is as if each batch were read when its own step
begins.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.lookup import Addressing
from runtime.train.batches import Batches
from runtime.train.leaf import Leaf
from runtime.train.rows import BatchRows, Rows


@dataclass(frozen=True, slots=True)
class Batch:
    step: int
    inputs: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64
    leaves: Mapping[int, Leaf]  # of every layer with a memory
    rows: BatchRows  # that the leaves are of

    def parts(self, count: int) -> "Iterator[Batch]":
        """Equal parts of the batch's sequences; gradients of each reach the rows of the whole."""
        size = len(self.inputs) // count
        for first in range(0, len(self.inputs), size):
            leaves = {layer: leaf.of_sequences(first, size) for layer, leaf in self.leaves.items()}
            inputs, targets = (tensor[first : first + size] for tensor in (self.inputs, self.targets))
            yield replace(self, inputs=inputs, targets=targets, leaves=leaves)


class Feed:
    """The batches in the order of their steps; `addressing` is None in a training without memory."""

    taken: Batch  # last

    def __init__(self, batches: Batches, addressing: Addressing | None, rows: Rows, device: torch.device) -> None:
        self._batches, self._addressing, self._rows, self._device = batches, addressing, rows, device
        self._next: Future[Batch] | None = None

    def take(self, step: int) -> Batch:
        """The batch of a step, whose rows are as they are now; the one after it is begun."""
        ready = self._next.result() if self._next else None
        batch = ready if ready and ready.step == step else self._made(step, None)
        batch.rows.settle()
        self.taken = batch
        self._next = _worker().submit(self._made, step + 1, batch.rows)
        return batch

    def write(self, batch: Batch, learning_rate: float) -> None:
        """Updates the rows of the batch taken last."""
        assert self._next is not None, "a batch is taken before it is written"
        self._next.result()  # it has read all it reads before anything is written
        batch.rows.write(learning_rate, batch.step + 1)

    def _made(self, step: int, before: BatchRows | None) -> Batch:
        inputs, targets = self._batches.at(step)
        rows = self._rows.ask(self._addressing.addresses(inputs).rows if self._addressing else {}, before)
        return Batch(step, self._tensor(inputs), self._tensor(targets), rows.leaves, rows)

    def _tensor(self, array: NDArray[np.signedinteger]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


@cache
def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="feed")
