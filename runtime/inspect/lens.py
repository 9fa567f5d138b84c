"""The value lens: what rows of a table say to the output, read off the weights without running the model.

For a layer's vector e, in which the rows asked for stand in their own columns and all other columns are zero,

    value  = W_V e                   the last D rows of the layer's fused projection, without its bias
    logits = W_U (g ⊙ value)         g the gain of the final norm, W_U the output head
    lens   = logits − their mean     over the vocabulary: a shift of all logits changes no probability

This is what the value alone adds to the logits, at gate 1, on a residual stream of RMS 1, past all later blocks and without the
convolution. In the model it is multiplied by the gate, divided by the RMS of the stream at the end, and later blocks may use or
undo it. The lens is linear: those of the rows of a position add up to that of its whole memory. It is computed in float32.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashing.base.errors import UsageError
from hashing.spec import HashSpec
from runtime.inspect.histogram import Histogram
from runtime.trained_run import TrainedRun

PUSHED = 10  # tokens, each way


@dataclass(frozen=True, slots=True)
class Push:
    """A token, and how far its logit is pushed: above 0 up, below 0 down."""

    token: str
    token_id: int
    logit: float  # less the mean over the vocabulary


@dataclass(frozen=True, slots=True)
class Lens:
    up: tuple[Push, ...]  # the tokens pushed up most, the largest push first
    down: tuple[Push, ...]  # pushed down most, the largest push first
    histogram: Histogram  # of the logits of all tokens

    def to_json(self) -> dict[str, Any]:
        return {
            "up": [asdict(push) for push in self.up],
            "down": [asdict(push) for push in self.down],
            "histogram": self.histogram.to_json(),
        }


@dataclass(frozen=True, slots=True)
class ValueLens:
    """The lens of a run's rows. A run without memory has none: raises UsageError."""

    trained: TrainedRun
    spec: HashSpec = field(init=False)

    def __post_init__(self) -> None:
        if self.trained.store is None:
            raise UsageError("this run was trained without memory: it has no rows to look into", hint="name a run with memory")
        object.__setattr__(self, "spec", self.trained.store.spec)

    def of_rows(self, layer: int, rows: Sequence[int]) -> Lens:
        """Of some rows of a layer, at most one a column: one row, those of an order, or all that a position reads.

        Raises UsageError for rows of one column or outside the table, EngramError for a layer without a table.
        """
        logits = self.logits(layer, rows)
        order = np.argsort(-logits, kind="stable")
        return Lens(self._pushes(logits, order[:PUSHED]), self._pushes(logits, order[::-1][:PUSHED]), Histogram.of(logits))

    @torch.no_grad()
    def logits(self, layer: int, rows: Sequence[int]) -> NDArray[np.float32]:
        """(vocabulary,) The lens as numbers, for every token."""
        model = self.trained.model
        logits = model.head(model.norm.weight.float() * self._value(layer, rows))
        return (logits - logits.mean()).cpu().numpy()  # type: ignore[no-any-return]

    def _value(self, layer: int, rows: Sequence[int]) -> Tensor:
        """(D,) W_V e."""
        vector = torch.from_numpy(self._vector(layer, rows))
        memory = self.trained.model.blocks[layer].memory
        assert memory is not None, "a layer with a table is a block with a memory"
        value_weight = memory.projection.weight[memory.streams * memory.hidden :]  # (D, E)
        return value_weight.float() @ vector.to(value_weight.device)

    def _vector(self, layer: int, rows: Sequence[int]) -> NDArray[np.float32]:
        """(E,) The rows in their own columns, zeros in the others."""
        columns = self._columns(layer, rows)
        vector = np.zeros((self.spec.columns, self.trained.config.head_dim), np.float32)
        vector[columns] = self.trained.tables[layer].gather(np.array(rows, np.int64))
        return vector.ravel()

    def _columns(self, layer: int, rows: Sequence[int]) -> list[int]:
        """The column of each row."""
        offsets, count = self.spec.offsets(layer), sum(self.spec.moduli(layer))
        if outside := [row for row in rows if not 0 <= row < count]:
            raise UsageError(f"layer {layer} has no row {outside[0]:,}", hint=f"its rows are 0 to {count - 1:,}")
        columns: list[int] = (np.searchsorted(offsets, rows, side="right") - 1).tolist()
        if len(set(columns)) != len(columns):
            raise UsageError(f"two of the rows {list(rows)} of layer {layer} are of one column", hint="a position reads one")
        return columns

    def _pushes(self, logits: NDArray[np.float32], token_ids: NDArray[np.intp]) -> tuple[Push, ...]:
        texts = self.trained.vocab.texts
        return tuple(Push(texts[i], i, float(logits[i])) for i in token_ids.tolist())
