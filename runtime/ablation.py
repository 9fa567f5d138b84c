"""Ablations: what a model is given in place of what its memory reads.

An ablation takes the vectors of a batch to other vectors. What is left out is zero, or the whole layer; what is replaced is the
mean of what stands there: zero is not what a model was trained on (paper, section 6), so both are worth a look.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashing.base.errors import UsageError
from hashing.spec import HashSpec
from runtime.vectors import Vectors
from table.store.gather import Table

Ablation = Callable[[Vectors], Vectors | None]
"""Gives what the model gets in place of the vectors; None suppresses the memory."""

MEAN_ROWS = 10_000_000  # of a layer: its mean is that of all rows, or of so many where it has more
PIECE_ROWS = 1 << 16


def intact(vectors: Vectors) -> Vectors:
    return vectors


def suppressed(_: Vectors) -> None:
    """The model with its memory switched off: not a model that was trained without one, which is better."""
    return


def without_layer(layer: int) -> Ablation:
    return lambda vectors: lambda asked: None if asked == layer else vectors(asked)


def without_order(spec: HashSpec, order: int) -> Ablation:
    """The columns of n-grams of one order are zero, in every layer."""
    index = spec.orders.index(order)

    def ablation(vectors: Vectors) -> Vectors:
        def zeroed(layer: int) -> Tensor | None:
            found = vectors(layer)
            if found is None:
                return None
            width = found.shape[-1] // len(spec.orders)  # heads · head_dim
            left_out = found.clone()
            left_out[..., index * width : (index + 1) * width] = 0
            return left_out

        return zeroed

    return ablation


def in_place_of_rows(means: Mapping[int, NDArray[np.float32]]) -> Ablation:
    """Every position gets the same vector (E,) of the layer."""

    def ablation(vectors: Vectors) -> Vectors:
        def replaced(layer: int) -> Tensor | None:
            found = vectors(layer)
            return None if found is None else torch.from_numpy(means[layer]).to(found).expand_as(found)

        return replaced

    return ablation


def named_ablation(name: str, spec: HashSpec) -> Ablation:
    """`layer:1` or `order:3`. Raises UsageError for what the spec does not have."""
    names = [*(f"layer:{layer}" for layer in spec.layers), *(f"order:{order}" for order in spec.orders)]
    if name not in names:
        raise UsageError(f"there is no {name!r} to leave out", hint=f"this run has {', '.join(names)}")
    kind, number = name.split(":")
    return without_layer(int(number)) if kind == "layer" else without_order(spec, int(number))


def mean_rows(tables: Mapping[int, Table], spec: HashSpec) -> dict[int, NDArray[np.float32]]:
    """Per layer (E,): for each column the mean over the rows of its head, side by side as in a position's vectors.

    Rows are read a few thousand at a time. Of a layer of more than MEAN_ROWS rows the first of each head are taken; hashing
    puts n-grams anywhere, so these are as good as any others.
    """
    return {layer: np.concatenate(_head_means(table, spec, layer)) for layer, table in tables.items()}


def _head_means(table: Table, spec: HashSpec, layer: int) -> list[NDArray[np.float32]]:
    means = []
    for first, rows in zip(spec.offsets(layer), spec.moduli(layer), strict=True):
        taken = rows if spec.rows(layer) <= MEAN_ROWS else min(rows, MEAN_ROWS // spec.columns)
        total = np.zeros(table.head_dim)
        for begin in range(first, first + taken, PIECE_ROWS):
            piece = table.gather(np.arange(begin, min(begin + PIECE_ROWS, first + taken)))
            total += piece.sum(0, dtype=np.float64)
        means.append((total / taken).astype(np.float32))
    return means
