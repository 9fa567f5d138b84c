"""What a row is: whose it is, how large, how often read, and which rows are like it.

The n-grams that read it are found by hashing the counted ones again. It is compared with the rows of its own head, which meet
the same columns of the model's projection: all of them, or a sample where they are many (`sample.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import UsageError
from hashing.ngrams.sharers import Column, Readers, column_of
from runtime.inspect.sample import Sample, finite, norms_of
from runtime.inspect.subject import Subject
from table.store.writer import Progress, quiet

if TYPE_CHECKING:
    from runtime.inspect.lens import Lens
    from runtime.inspect.occurrences import RowContexts

NEIGHBOURS = 8


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another row of the same head, and how near it points."""

    row: int
    cosine: float
    ngram: list[str] | None  # the most frequent one that reads it; None without counts, or where the corpus has none

    def to_json(self) -> dict[str, Any]:
        return {"row": self.row, "cosine": self.cosine, "ngram": self.ngram}


@dataclass(frozen=True, slots=True)
class RowView:
    layer: int
    row: int  # in the layer's table
    column: Column
    norm: float
    norm_percentile: float | None  # of the rows compared, those with a smaller norm, and half of those with the same
    compared: Sample  # the rows that norm and cosine were compared with
    training_reads: int | None  # training steps that read it; None where no training kept that
    ngrams: tuple[dict[str, Any], ...] | None  # every counted one that reads it, the most frequent first; None without counts
    neighbours: tuple[Neighbour, ...]  # the nearest first; none for a row of zeros
    lens: "Lens | None" = None  # None where no model was asked
    contexts: "RowContexts | None" = None

    @property
    def head_row(self) -> int:
        """The row's number within its head: the n-gram's mix modulo the head's prime."""
        return self.row - self.column.first

    def to_json(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "row": self.row,
            "order": self.column.order,
            "head": self.column.head,
            "head_row": self.head_row,
            "head_rows": self.column.rows,
            "norm": finite(self.norm),
            "norm_percentile": self.norm_percentile,
            "compared_rows": self.compared.rows,
            "training_reads": self.training_reads,
            "ngrams": None if self.ngrams is None else list(self.ngrams),
            "lens": self.lens.to_json() if self.lens else None,
            "neighbours": [found.to_json() for found in self.neighbours],
            "contexts": self.contexts.to_json() if self.contexts else None,
        }


def compared_bytes(subject: Subject, layer: int, row: int, full: bool = False) -> int:
    """How many bytes of rows `view_row` looks at. Raises UsageError as that does."""
    return Sample.of(_column(subject, layer, row), full).rows * subject.tables[layer].row_bytes


def view_row(subject: Subject, layer: int, row: int, full: bool = False, progress: Progress = quiet) -> RowView:
    """With `full`, compared with all rows of its head, however many; `progress` hears of bytes looked at.

    Raises UsageError for a layer without a table, and a row that its table does not have or only pads it.
    """
    return view_rows(subject, [(layer, row)], full, progress)[0]


def view_rows(
    subject: Subject, places: Sequence[tuple[int, int]], full: bool = False, progress: Progress = quiet
) -> list[RowView]:
    """Of each (layer, row), as `view_row` has it; the counts are gone through once for all of them."""
    compared = [(layer, _compared(subject, layer, row, full, progress)) for layer, row in places]
    wanted: dict[int, set[int]] = {}
    for layer, found in compared:
        wanted.setdefault(layer, set()).update([found.row, *(other for other, _ in found.nearest())])
    readers = subject.readers({layer: sorted(rows) for layer, rows in wanted.items()})
    return [_view(subject, layer, found, readers) for layer, found in compared]


def _view(subject: Subject, layer: int, found: "_Comparison", readers: Readers | None) -> RowView:
    nearest = found.nearest()
    numbers = [found.row, *(other for other, _ in nearest)]
    known = {row: [subject.named(one) for one in readers[layer][row]] for row in numbers} if readers else {}
    return RowView(
        layer=layer,
        row=found.row,
        column=found.sample.column,
        norm=found.norm,
        norm_percentile=found.percentile,
        compared=found.sample,
        training_reads=subject.reads.of_rows(layer, [found.row])[0] if subject.reads else None,
        ngrams=tuple(known[found.row]) if known else None,
        neighbours=tuple(
            Neighbour(other, cosine, known[other][0]["ngram"] if known.get(other) else None) for other, cosine in nearest
        ),
    )


def _column(subject: Subject, layer: int, row: int) -> Column:
    spec = subject.spec
    if layer not in spec.layers:
        raise UsageError(f"layer {layer} has no table", hint=f"the layers that have one: {', '.join(map(str, spec.layers))}")
    if not 0 <= row < spec.rows(layer):
        raise UsageError(
            f"row {row:,} is outside the table of layer {layer}: expected 0 to {spec.rows(layer) - 1:,}",
            hint="rows are numbered over the whole layer, as engram inspect ngram shows them",
        )
    if (column := column_of(spec, layer, row)) is None:
        last = sum(spec.moduli(layer)) - 1
        raise UsageError(
            f"row {row:,} of layer {layer} only pads the table: no n-gram reads it", hint=f"the heads' rows are 0 to {last:,}"
        )
    return column


@dataclass(slots=True)
class _Comparison:
    """A row against others of its head, as these pass by."""

    row: int
    sample: Sample
    unit: NDArray[np.float64]  # (head_dim,) its direction
    norm: float
    smaller: int = 0
    same: int = 0
    seen: int = 0
    found: list[tuple[float, int]] = field(default_factory=list)  # cosine, row

    def add_zeros(self, rows: int) -> None:
        self.same += rows * (self.norm == 0)
        self.smaller += rows * (self.norm > 0)
        self.seen += rows

    def add(self, first: int, vectors: NDArray[np.float32]) -> None:
        norms = norms_of(vectors)
        self.smaller += int((norms < self.norm).sum())
        self.same += int((norms == self.norm).sum())
        self.seen += len(norms)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            cosines = (vectors @ self.unit.astype(np.float32)).astype(np.float64) / norms
        cosines[~np.isfinite(cosines)] = -2  # rows of zeros, and what is no number
        if first <= self.row < first + len(norms):
            cosines[self.row - first] = -2
        top = np.argpartition(-cosines, min(NEIGHBOURS, len(cosines)) - 1)[:NEIGHBOURS]
        self.found = sorted([*self.found, *((float(cosines[i]), first + int(i)) for i in top)], key=_nearest_first)[:NEIGHBOURS]

    @property
    def percentile(self) -> float | None:
        return 100 * (self.smaller + self.same / 2) / self.seen if np.isfinite(self.norm) else None

    def nearest(self) -> list[tuple[int, float]]:
        return [(row, max(-1.0, min(1.0, cosine))) for cosine, row in self.found if cosine > -2]


def _nearest_first(found: tuple[float, int]) -> tuple[float, int]:
    return -found[0], found[1]


def _compared(subject: Subject, layer: int, row: int, full: bool, progress: Progress) -> _Comparison:
    sample = Sample.of(_column(subject, layer, row), full)
    vector, table = subject.vectors(layer, [row])[0], subject.tables[layer]
    norm = float(norms_of(vector[None])[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        comparison = _Comparison(row, sample, vector.astype(np.float64) / norm, norm)  # of a row of zeros, no number
    for piece in sample.pieces(table, subject.shards(layer)):
        if piece.records is None:
            comparison.add_zeros(piece.rows)
        else:
            comparison.add(piece.first, piece.vectors(table))
        progress(piece.rows * table.row_bytes)
    return comparison
