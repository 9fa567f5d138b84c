"""Sequences in pieces, as batches for a model or for one block of it."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from runtime.model.config import ModelConfig
from runtime.model.pages import PAGE, Batch, Pages


def in_pieces(config: ModelConfig, sequences: int, lengths: Sequence[int]) -> Iterator[tuple[Batch, slice]]:
    """For each length a batch of so many next positions of every sequence, and which positions they are.

    Pages are handed out from the last to the first, and hold NaN until something is written.
    """
    each = -(-sum(lengths) // PAGE)
    pages = Pages(config, torch.device("cpu"))
    pages.grow(sequences * each)
    for block in pages.blocks:
        for tensor in block.tensors().values():
            tensor.fill_(torch.nan)
    tables = np.arange(sequences * each)[::-1].reshape(sequences, each).copy()
    first = 0
    for length in lengths:
        owners = np.repeat(np.arange(sequences), length)
        positions = np.tile(np.arange(first, first + length), sequences)
        yield Batch(pages, tables, owners, positions), slice(first, first + length)
        first += length
