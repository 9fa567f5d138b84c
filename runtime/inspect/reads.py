"""Reads: how many steps of a training read each row, as the optimiser counted them.

The newest checkpoint keeps the number in `optimizer.safetensors`, `layers/<block>/updates` (float32, one per row): a step moves
exactly the rows that its batch reads. Single numbers are read from the mapped file; torch is not needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hashing.base.errors import EngramError
from runtime.checkpoints import checkpoints
from runtime.run import Run
from table.store.store import TableStore


@dataclass(frozen=True, slots=True)
class Reads:
    """The counts of reads of a store's rows, mapped."""

    path: Path
    counts: dict[int, Any]  # layer → a slice of the file, of shape (rows,)

    @classmethod
    def of(cls, run: Run, store: TableStore) -> "Reads | None":
        """None where no checkpoint of the store's step keeps them: nothing was trained, or it was elsewhere.

        Raises EngramError when the file is damaged.
        """
        found = [checkpoint for checkpoint in checkpoints(run.train_folder) if checkpoint.step == store.step]
        path = found[-1].folder / "optimizer.safetensors" if found else None
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, "np") as file:
                counts = {layer: file.get_slice(f"layers/{layer}/updates") for layer in store.spec.layers}
        except SafetensorError as e:
            raise EngramError(f"{path} does not hold how often rows were read: {e}") from e
        for layer, count in counts.items():
            if (shape := list(count.get_shape())) != [expected := store.spec.rows(layer)]:
                raise EngramError(f"{path}: layers/{layer}/updates has shape {shape}, expected [{expected}]")
        return cls(path, counts)

    def of_rows(self, layer: int, rows: Sequence[int]) -> list[int]:
        """The training steps that read each of a few rows."""
        return [int(self.counts[layer][row : row + 1][0]) for row in rows]

    def of_layer(self, layer: int) -> NDArray[np.float32]:
        """(rows,) The training steps that read each row of a layer."""
        counts: NDArray[np.float32] = self.counts[layer][:]
        return counts
