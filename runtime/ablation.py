"""Ablations: what a model is given in place of what its memory reads.

An ablation takes the vectors of a batch to other vectors. What is left out is zero, or the whole layer; what is replaced is the
mean of what stands there: zero is not what a model was trained on (paper, section 6), so both are worth a look. Another kind of
variant, Held, leaves the vectors and holds a value inside the memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashing.base.errors import UsageError
from hashing.spec import HashSpec
from runtime.model.points import Watch
from runtime.placement.row_source import RowSource
from runtime.vectors import Vectors

Ablation = Callable[[Vectors], Vectors | None]
"""Gives what the model gets in place of the vectors; None suppresses the memory."""


@dataclass(frozen=True, slots=True)
class Held:
    """A variant of a model that differs at its named points (`runtime/model/points.py`), on the same vectors."""

    watch: Watch


Variant = Ablation | Held

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
    first = spec.orders.index(order) * spec.heads
    return _without_columns(spec, range(first, first + spec.heads))


def without_head(spec: HashSpec, order: int, head: int) -> Ablation:
    """One column of an order is zero, in every layer; heads are counted from 0."""
    column = spec.orders.index(order) * spec.heads + head
    return _without_columns(spec, [column])


def _without_columns(spec: HashSpec, columns: Sequence[int]) -> Ablation:
    def ablation(vectors: Vectors) -> Vectors:
        def zeroed(layer: int) -> Tensor | None:
            found = vectors(layer)
            if found is None:
                return None
            left_out = found.clone()
            left_out.view(*found.shape[:-1], spec.columns, -1)[..., list(columns), :] = 0
            return left_out

        return zeroed

    return ablation


def gate_held(value: float) -> Held:
    """Every gate of every layer is held at a number from 0 to 1, whatever the hidden state."""
    return Held(lambda name, found: torch.full_like(found, value) if name.endswith(".memory.gate") else None)


def without_convolution() -> Held:
    """What the memory's convolution adds is zero, in every layer."""
    return Held(lambda name, found: torch.zeros_like(found) if name.endswith(".memory.conv") else None)


def in_place_of_rows(means: Mapping[int, NDArray[np.float32]]) -> Ablation:
    """Every position gets the same vector (E,) of the layer."""

    def ablation(vectors: Vectors) -> Vectors:
        def replaced(layer: int) -> Tensor | None:
            found = vectors(layer)
            return None if found is None else torch.from_numpy(means[layer]).to(found).expand_as(found)

        return replaced

    return ablation


def named_ablations(spec: HashSpec) -> dict[str, Ablation]:
    """All that can be left out: every `layer:1`, `order:3` and `head:3.0`, the head of an order."""
    return {
        **{f"layer:{layer}": without_layer(layer) for layer in spec.layers},
        **{f"order:{order}": without_order(spec, order) for order in spec.orders},
        **{f"head:{order}.{head}": without_head(spec, order, head) for order in spec.orders for head in range(spec.heads)},
    }


def named_ablation(name: str, spec: HashSpec) -> Ablation:
    """One of `named_ablations`. Raises UsageError for what the spec does not have."""
    ablations = named_ablations(spec)
    if name not in ablations:
        raise UsageError(f"there is no {name!r} to leave out", hint=f"this run has {', '.join(ablations)}")
    return ablations[name]


def mean_rows(tables: Mapping[int, RowSource], spec: HashSpec) -> dict[int, NDArray[np.float32]]:
    """Per layer (E,): for each column the mean over the rows of its head, side by side as in a position's vectors.

    Rows are read a few thousand at a time. Of a layer of more than MEAN_ROWS rows the first of each head are taken; hashing
    puts n-grams anywhere, so these are as good as any others.
    """
    return {layer: np.concatenate(_head_means(table, spec, layer)) for layer, table in tables.items()}


def _head_means(table: RowSource, spec: HashSpec, layer: int) -> list[NDArray[np.float32]]:
    means = []
    for first, rows in zip(spec.offsets(layer), spec.moduli(layer), strict=True):
        taken = rows if spec.rows(layer) <= MEAN_ROWS else min(rows, MEAN_ROWS // spec.columns)
        total = np.zeros(table.head_dim)
        for begin in range(first, first + taken, PIECE_ROWS):
            piece = table.gather(np.arange(begin, min(begin + PIECE_ROWS, first + taken)))
            total += piece.sum(0, dtype=np.float64)
        means.append((total / taken).astype(np.float32))
    return means
