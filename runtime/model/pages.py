"""Pages: what the positions of sequences leave for those after them, in pages that sequences may share.

A page holds PAGE positions of one sequence in every block: their keys and values, and where a memory has a convolution the
normalised values that it reads again. A sequence is a list of page numbers. So its text can arrive in pieces of any length,
sequences that begin alike can share their first pages, and rows of many sequences can be computed as one batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.model.config import ModelConfig

PAGE = 32  # positions

Numbers = NDArray[np.int64]


@dataclass(slots=True)
class BlockPages:
    """One block's part of every page."""

    keys: Tensor  # (pages, key heads, PAGE, head_dim)
    values: Tensor  # the same
    convolved: Tensor | None  # (pages, PAGE, M, D); None in a block without a convolution

    @classmethod
    def empty(cls, config: ModelConfig, block: int, device: torch.device) -> "BlockPages":
        heads, width, memory = config.key_heads, config.head_dim, config.memory
        convolves = memory is not None and block in memory.layers and memory.conv
        return cls(
            torch.empty(0, heads, PAGE, width, device=device),
            torch.empty(0, heads, PAGE, width, device=device),
            torch.empty(0, PAGE, config.streams, config.hidden, device=device) if convolves else None,
        )

    def tensors(self) -> dict[str, Tensor]:
        named = {"keys": self.keys, "values": self.values, "convolved": self.convolved}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


class Pages:
    """The pages of all blocks of a model, in float32."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.count = 0
        self.blocks = [BlockPages.empty(config, block, device) for block in range(config.blocks)]

    def grow(self, count: int) -> None:
        """Makes room for `count` pages in all; what is in those there are stays.

        The new ones are written to, which takes their memory now and not when positions come.
        """
        for block in self.blocks:
            for name, tensor in block.tensors().items():
                grown = _empty(tensor, count)
                grown[: self.count] = tensor
                grown[self.count :] = 0
                setattr(block, name, grown)
        self.count = count

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for block in self.blocks for tensor in block.tensors().values())

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Gives the target pages what is in the sources."""
        for block in self.blocks:
            for tensor in block.tensors().values():
                tensor[list(targets)] = tensor[list(sources)]


def _empty(like: Tensor, count: int) -> Tensor:
    """Room for so many pages like those of a tensor. On a CPU it is numpy's, which asks the system for large pages of memory:
    a step reads from all over it, and to look up where small ones lie takes a part of its time (docs/log.md).
    """
    shape = count, *like.shape[1:]
    return torch.from_numpy(np.empty(shape, np.float32)) if like.is_cpu else like.new_empty(shape)


@dataclass(frozen=True, slots=True)
class Batch:
    """Which sequence and position each of N rows is. Rows of one sequence stand together, in the order of their positions."""

    pages: Pages
    tables: Numbers  # (sequences, most pages of any) page numbers
    owners: Numbers  # (N,) the sequence of each row, as a line of `tables`
    positions: Numbers  # (N,) the position of each row in its sequence; -1 where a row only fills the batch up
    length: int = field(init=False)  # of the sequence that reaches furthest

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", int(self.positions.max()) + 1)

    def moved(self) -> "Batch":
        """The rows that follow these, one of each sequence, where its pages reach so far."""
        return Batch(self.pages, self.tables, self.owners, self.positions + (self.positions >= 0))

    @property
    def places(self) -> tuple[Numbers, Numbers, Numbers]:
        """What compiled code takes of it."""
        return self.owners, self.positions, self.tables

    def block(self, number: int) -> "BlockBatch":
        return BlockBatch(self, self.pages.blocks[number])


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """A batch as one block sees it."""

    batch: Batch
    pages: BlockPages

    @property
    def live(self) -> NDArray[np.bool_]:
        """(N,) Which rows do not only fill the batch up."""
        return self.batch.positions >= 0

    def places(self, back: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """For the position so far `back` from each row's: its page, its place in the page, and whether there is one (N,).

        Where there is none the place is some other.
        """
        wanted = self.batch.positions - back
        exists = wanted >= 0
        wanted = np.maximum(wanted, 0)
        pages = self.batch.tables[self.batch.owners, wanted // PAGE]
        device = self.pages.keys.device
        found = (torch.from_numpy(array).to(device) for array in (pages, wanted % PAGE, exists))
        return next(found), next(found), next(found)

    def sequences(self) -> list[tuple[Tensor, slice, int]]:
        """Of each sequence its pages, its rows, and the position of the first of them."""
        owners, positions = self.batch.owners[self.live], self.batch.positions[self.live]
        firsts = np.flatnonzero(np.diff(owners, prepend=-1))
        ends = np.append(firsts[1:], len(owners))
        found = []
        for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
            pages = self.batch.tables[owners[first], : positions[end - 1] // PAGE + 1]
            found.append((torch.from_numpy(pages).to(self.pages.keys.device), slice(first, end), int(positions[first])))
        return found


def page_bytes(config: ModelConfig) -> int:
    """What a page takes in all blocks."""
    pages = Pages(config, torch.device("meta"))
    pages.grow(1)
    return pages.nbytes
