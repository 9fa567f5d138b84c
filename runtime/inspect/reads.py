"""Reads: how many steps of a training read each row, as the optimiser counted them.

The checkpoint of the tables' step keeps the number beside the moments, `layers/<block>/updates` (float32, one per row), with
changes laid over it (`train/checkpoint.py`): a step moves exactly the rows that its batch reads. Torch is not needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hashing.base.errors import EngramError
from runtime.checkpoints import checkpoints
from runtime.run import Run
from table.store.store import TableStore


@dataclass(slots=True)
class LayerReads:
    """The counts of reads of a layer's rows."""

    rows: int
    whole: Any = None  # a slice of a file, of shape (rows,), mapped; None where changes have all that is not 0
    changes: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = field(default_factory=list)  # rows, ascending, and counts

    def lay_over(self, tensors: Mapping[str, Any], layer: int) -> None:
        """Takes the slices of a file by name, which count more than what was there before."""
        if (found := tensors.get(f"layers/{layer}/updates")) is None:
            return
        if (rows := tensors.get(f"layers/{layer}/rows")) is not None:
            self.changes.append((rows[:], found[:]))
        elif (shape := list(found.get_shape())) != [self.rows]:
            raise EngramError(f"layers/{layer}/updates has shape {shape}, expected [{self.rows}]")
        else:
            self.whole = found

    def of_row(self, row: int) -> int:
        for rows, counts in reversed(self.changes):
            place = int(np.searchsorted(rows, row))
            if place < len(rows) and rows[place] == row:
                return int(counts[place])
        return 0 if self.whole is None else int(self.whole[row : row + 1][0])

    def of_all(self) -> NDArray[np.float32]:
        counts: NDArray[np.float32] = np.zeros(self.rows, np.float32) if self.whole is None else self.whole[:]
        for rows, changed in self.changes:
            counts[rows] = changed
        return counts


@dataclass(frozen=True, slots=True)
class Reads:
    """The counts of reads of a store's rows."""

    layers: Mapping[int, LayerReads]

    @classmethod
    def of(cls, run: Run, store: TableStore) -> "Reads | None":
        """None where no checkpoint of the store's step keeps them: nothing was trained, or it was elsewhere.

        Raises EngramError when a file is damaged.
        """
        found = [checkpoint for checkpoint in checkpoints(run.train_folder) if checkpoint.step == store.step]
        layers = {layer: LayerReads(store.spec.rows(layer)) for layer in store.spec.layers}
        for path in found[-1].row_files() if found else ():
            try:
                with safe_open(path, "np") as file:
                    tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                    for layer, reads in layers.items():
                        reads.lay_over(tensors, layer)
            except (SafetensorError, EngramError) as e:
                raise EngramError(f"{path} does not hold how often rows were read: {e}") from e
        kept = any(reads.changes or reads.whole is not None for reads in layers.values())
        return cls(layers) if kept else None

    def of_rows(self, layer: int, rows: Sequence[int]) -> list[int]:
        """The training steps that read each of a few rows."""
        return [self.layers[layer].of_row(row) for row in rows]

    def of_layer(self, layer: int) -> NDArray[np.float32]:
        """(rows,) The training steps that read each row of a layer."""
        return self.layers[layer].of_all()
