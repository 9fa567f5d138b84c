"""Shadow: in one step of several, rows and vectors are found once more by the slowest and plainest way, and compared.

A server that reads wrong rows answers fluently, and nobody notices: an engine shipped that did so at every decoding step. So
rows are computed again from the token ids of the whole sequence, by the reference rule in plain integers and with no state that
was carried on, and their records are read again from the files, one by one.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hashing import reference
from hashing.spec import HashSpec
from runtime.decoder import Decoded, Piece
from runtime.placement.row_source import RowSource
from runtime.vectors import LayerRows, Vectors
from table.store.table_files import OpenFiles

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Shadow:
    canonical: Callable[[np.ndarray], np.ndarray]  # token ids (T,) to those that are addressed
    spec: HashSpec
    tables: Mapping[int, RowSource]  # as they lie in files
    every: int  # steps
    files: Mapping[int, OpenFiles] = field(init=False)
    steps: int = 0
    checked: int = 0  # rows
    mismatches: int = 0

    def __post_init__(self) -> None:
        self.files = {layer: table.files.open() for layer, table in self.tables.items()}

    def __call__(self, pieces: Sequence[Piece], rows: LayerRows, vectors: Vectors) -> None:
        """Looks at every so many-th step."""
        self.steps += 1
        if self.steps % self.every:
            return
        for layer, found in rows.items():
            expected = np.concatenate([self._rows(layer, sequence, ids) for sequence, ids in pieces])
            given = vectors(layer)
            wrong = (found[0] != expected).any(1)
            if given is not None:
                plain = self._vectors(layer, expected)
                wrong |= (given[0].cpu().numpy() != plain).any(1)
            self.checked += expected.size
            if wrong.any():
                self.mismatches += int(wrong.sum())
                told = "step %d, layer %d: at %d positions rows or vectors are not those of the rule"
                log.error(told, self.steps, layer, int(wrong.sum()))

    def _vectors(self, layer: int, rows: np.ndarray) -> np.ndarray:
        """(tokens, E) Those of rows (tokens, columns)."""
        table = self.tables[layer]
        records = [self.files[layer].record(row) or bytes(table.row_bytes) for row in rows.ravel().tolist()]
        return table.decoded(np.array([np.frombuffer(record, np.uint8) for record in records])).reshape(len(rows), -1)

    def _rows(self, layer: int, sequence: Decoded, ids: Sequence[int]) -> np.ndarray:
        """(tokens, columns) Rows of the token ids that follow the sequence, from as much before them as the rule can reach."""
        first = max(0, sequence.length - self.spec.max_order + 1)
        token_ids = [*sequence.token_ids[first:], *ids]
        canonical = self.canonical(np.array(token_ids, np.int64)).tolist()
        return np.array(reference.rows(self.spec, layer, canonical)[sequence.length - first :], np.int64)
