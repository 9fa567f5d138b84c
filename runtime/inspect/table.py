"""The health of tables: what their rows hold, how many were ever read, and how full their heads are.

Rows are looked at once, in pieces; small heads whole, large ones by a sample that is stated, or whole with `full`. How full a
head is and which rows are read most follows from counted n-grams, hashed again. A row is called exploded when its norm is more
than 10 times the median of its layer's rows that are not zeros.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from hashing.ngrams.collisions import HeadCollisions, effective, head_collisions
from hashing.ngrams.sharers import Column
from hashing.spec import HashSpec
from runtime.inspect.norms import Norms
from runtime.inspect.rank import Spectrum
from runtime.inspect.sample import Sample, norms_of
from runtime.inspect.subject import Subject
from table.faults import RowFaults
from table.store.writer import Progress, quiet

HEAVIEST = 8  # rows named per layer


@dataclass(frozen=True, slots=True)
class HeavyRow:
    """One of the rows that the corpus reads most."""

    row: int
    order: int
    head: int
    traffic_percent: float  # of its head's reads
    ngrams: int  # distinct ones that read it
    ngram: list[str]  # the most frequent of them


@dataclass(frozen=True, slots=True)
class HeadHealth:
    column: Column
    sampled_rows: int
    zero_rows: int  # of the sampled
    rank_rows: int  # that the ranks are of
    rank_entropy: float | None  # `rank.py`; None where all sampled rows are zeros
    rank_participation: float | None
    occupied_rows: int | None  # that some n-gram of the corpus reads; None without counts
    occupied_expected: float | None  # by a uniform hash

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        column = content.pop("column")
        return {"order": column["order"], "head": column["head"], "rows": column["rows"], "first": column["first"], **content}


@dataclass(frozen=True, slots=True)
class LayerHealth:
    layer: int
    rows: int  # padding included
    norms: Norms
    faults: tuple[tuple[int, str], ...]  # (row, what is wrong): NaN, infinite, scales out of the ordinary
    never_read_rows: int | None  # of all rows, in training; None where no training kept that
    heads: tuple[HeadHealth, ...]
    heaviest: tuple[HeavyRow, ...] | None  # None without counts

    @property
    def sampled_rows(self) -> int:
        return sum(head.sampled_rows for head in self.heads)

    @property
    def zero_rows(self) -> int:
        """Of the sampled."""
        return self.norms.zeros

    @property
    def as_made_rows(self) -> int:
        """Rows still as they were made: never read where a training says so, else rows of zeros among the sampled."""
        return self.zero_rows if self.never_read_rows is None else self.never_read_rows

    def to_json(self) -> dict[str, Any]:
        count, named = self.norms.exploded()
        return {
            "rows": self.rows,
            "sampled_rows": self.sampled_rows,
            "zero_rows": self.zero_rows,
            "never_read_rows": self.never_read_rows,
            "as_made_rows": self.as_made_rows,
            "norm_percentiles": {str(percent): norm for percent, norm in self.norms.percentiles().items()},
            "norm_histogram": self.norms.histogram(),
            "exploded_rows": count,
            "exploded": [{"row": row, "norm": norm} for norm, row in named],
            "faults": [{"row": row, "fault": fault} for row, fault in self.faults],
            "heads": [head.to_json() for head in self.heads],
            "heaviest": None if self.heaviest is None else [asdict(row) for row in self.heaviest],
        }


@dataclass(frozen=True, slots=True)
class TableView:
    path: str
    encoding: str
    head_dim: int
    layers: tuple[LayerHealth, ...]

    def to_json(self) -> dict[str, Any]:
        layers = {str(health.layer): health.to_json() for health in self.layers}
        return {"path": self.path, "encoding": self.encoding, "head_dim": self.head_dim, "layers": layers}


def columns_of(spec: HashSpec, layer: int) -> Iterator[Column]:
    """The heads of a layer, in order of their rows."""
    for place, (first, rows) in enumerate(zip(spec.offsets(layer), spec.moduli(layer), strict=True)):
        yield Column(place // spec.heads + 2, place % spec.heads, first, rows)


def sampled_bytes(subject: Subject, full: bool = False) -> int:
    """How many bytes `view_table` looks at."""
    spec, tables = subject.spec, subject.tables
    heads = ((layer, column) for layer in spec.layers for column in columns_of(spec, layer))
    return sum(Sample.of(column, full).rows * tables[layer].row_bytes for layer, column in heads)


def view_table(subject: Subject, full: bool = False, progress: Progress = quiet) -> TableView:
    """With `full`, every row is looked at; `progress` hears of bytes.

    Raises EngramError for counts that lack an order, and for damaged counts.
    """
    store, collisions = subject.store, _collisions(subject)
    layers = tuple(_layer(subject, layer, collisions[layer], full, progress) for layer in subject.spec.layers)
    return TableView(str(store.path), store.encoding.name, store.head_dim, layers)


def _collisions(subject: Subject) -> dict[int, list[HeadCollisions]]:
    """Of each layer's heads, in order of their rows; none without counts."""
    spec, counts = subject.spec, subject.counts
    collisions: dict[int, list[HeadCollisions]] = {layer: [] for layer in spec.layers}
    for order in spec.orders if counts else ():
        assert counts
        grams = effective(spec, counts, order)
        for layer in spec.layers:
            collisions[layer] += [found for found, _ in head_collisions(spec, layer, order, grams)]
    return collisions


def _layer(subject: Subject, layer: int, collisions: list[HeadCollisions], full: bool, progress: Progress) -> LayerHealth:
    spec, store = subject.spec, subject.store
    norms, faults = Norms(), RowFaults(store.encoding, store.head_dim)
    heads = tuple(
        _head(subject, layer, Sample.of(column, full), found, (norms, faults), progress)
        for column, found in zip_longest(columns_of(spec, layer), collisions)
    )
    reads = subject.reads.of_layer(layer)[: sum(spec.moduli(layer))] if subject.reads else None
    return LayerHealth(
        layer=layer,
        rows=spec.rows(layer),
        norms=norms,
        faults=tuple(faults.found()),
        never_read_rows=None if reads is None else int(np.count_nonzero(reads == 0)),
        heads=heads,
        heaviest=_heaviest(subject, collisions) if collisions else None,
    )


def _head(
    subject: Subject,
    layer: int,
    sample: Sample,
    collisions: HeadCollisions | None,
    of_layer: tuple[Norms, RowFaults],
    progress: Progress,
) -> HeadHealth:
    """Looks at a head's rows, which also go into the figures of the layer."""
    table = subject.tables[layer]
    norms, faults = of_layer
    spectrum, zeros = Spectrum(), norms.zeros
    for piece in sample.pieces(table, subject.shards(layer)):
        if piece.records is None:
            norms.zeros += piece.rows
        else:
            faults.scan(piece.first, piece.records)
            vectors = piece.vectors(table)
            found = norms_of(vectors)
            norms.add(piece.first, found)
            spectrum.add(vectors, found)
        progress(piece.rows * table.row_bytes)
    entropy, participation = spectrum.ranks() or (None, None)
    return HeadHealth(
        column=sample.column,
        sampled_rows=sample.rows,
        zero_rows=norms.zeros - zeros,
        rank_rows=spectrum.rows,
        rank_entropy=entropy,
        rank_participation=participation,
        occupied_rows=int(collisions.occupied.found) if collisions else None,
        occupied_expected=collisions.occupied.expected if collisions else None,
    )


def _heaviest(subject: Subject, collisions: list[HeadCollisions]) -> tuple[HeavyRow, ...]:
    """The rows of a layer that take the largest share of their head's reads; of those of one n-gram, the first alone."""
    found = [(head, row) for head in collisions for row in head.heaviest]
    found.sort(key=lambda pair: (-pair[1].traffic_percent, pair[1].row))
    by_ngram = {row.ngram: (head, row) for head, row in reversed(found)}
    chosen = sorted(by_ngram.values(), key=lambda pair: (-pair[1].traffic_percent, pair[1].row))[:HEAVIEST]
    return tuple(
        HeavyRow(row.row, head.order, head.head, row.traffic_percent, row.distinct, subject.keys(row.ngram))
        for head, row in chosen
    )
