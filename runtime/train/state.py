"""State: everything that a training step changes, and which rows it has changed since the last checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from runtime.model.language_model import LanguageModel
from runtime.train.row_table import RowTable
from runtime.train.rows import Rows

ROWS_AT_ONCE = 1 << 18  # that are copied out of a table: tens of megabytes


@dataclass(slots=True)
class State:
    """The marks cost a byte a row; with them a checkpoint finds what to write without looking at the rows."""

    model: LanguageModel
    optimizer: torch.optim.Optimizer
    rows: Rows
    step: int = 0
    elapsed_sec: float = 0.0  # of training, with its validations and checkpoints
    marks: dict[int, Tensor] = field(init=False)  # layer → (rows,) bool, on the table's device

    @property
    def tables(self) -> Mapping[int, RowTable]:
        """Of each layer what this process has in memory."""
        return self.rows.tables

    def __post_init__(self) -> None:
        weights = {layer: table.weight for layer, table in self.tables.items()}
        self.marks = {layer: torch.zeros(len(w), dtype=torch.bool, device=w.device) for layer, w in weights.items()}

    def mark(self, layer: int, rows: Tensor) -> None:
        """Says that a step has changed rows (U,) of a layer, or their moments."""
        self.marks[layer].index_fill_(0, rows - self.tables[layer].first, True)

    def mark_all(self) -> None:
        for marks in self.marks.values():
            marks.fill_(True)

    def unmark(self) -> None:
        for marks in self.marks.values():
            marks.zero_()

    def changed(self) -> dict[int, Tensor]:
        """layer → (U,) int64 The rows changed since the last checkpoint, ascending."""
        return {layer: marks.nonzero().flatten() + self.tables[layer].first for layer, marks in self.marks.items()}

    def is_finite(self, changed: Mapping[int, Tensor]) -> bool:
        """Whether the model's numbers, and those of rows changed since the last checkpoint, are neither infinite nor NaN."""
        if not self.rows.is_finite:
            return False
        rows = (
            self.tables[layer].gathered(piece)
            for layer, numbers in changed.items()
            for piece in torch.split(numbers, ROWS_AT_ONCE)
        )
        return all(bool(tensor.isfinite().all()) for tensor in chain(self.model.state_dict().values(), rows))
