"""Occurrences: how far the gate opens where the training side has an n-gram or reads a row, and in which contexts.

A fair sample of the occurrences is looked at (`places`), each in a window of its own (`readings`). The gate is the layer's at
the position that reads, the mean over its streams: it weighs the whole memory of the position, of which a row is one part.

Time and memory: the side is gone through once for all rows or n-grams of a call, at several million tokens a second; a position
that several of them share is read by the model once. Kept are `most` positions of each, and some 300 bytes for a position.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import UsageError
from hashing.spec import HashSpec
from runtime.inspect.histogram import Histogram
from runtime.inspect.places import Places, Scan
from runtime.inspect.readings import Readings, read
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun

NGRAM_SAMPLED, ROW_SAMPLED = 64, 256  # occurrences that the model reads, unless told: a phrase is to be answered at once
STRONGEST, BANDS, PER_BAND = 20, 10, 5
DIGITS = 4  # of gates and nats in JSON; bands and their contexts are rounded alike, so that a context stays in its band
Row = tuple[int, int]
"""(layer, row)"""


@dataclass(frozen=True, slots=True)
class GateQuartiles:
    """How far a layer's gate opens at an n-gram's occurrences in the training side."""

    occurrences: int  # all that were counted, in `tokens` tokens of the side
    sampled: int  # of them, those that the model has read; the figures are over these
    tokens: int
    quartiles: tuple[float, float, float]
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "quartiles": list(self.quartiles)}


@dataclass(frozen=True, slots=True)
class Context:
    """An occurrence with the tokens around it."""

    tokens: tuple[str, ...]
    position: int  # which of the tokens reads the row
    gates: tuple[float, ...]  # of the row's layer, at each token
    effect_nats: tuple[float | None, ...]  # each token's loss without memory less that with it; None at a side's beginning

    @property
    def gate(self) -> float:
        """At the position."""
        return self.gates[self.position]

    def to_json(self) -> dict[str, Any]:
        return {
            "tokens": list(self.tokens),
            "position": self.position,
            "gates": list(self.gates),
            "effect_nats": list(self.effect_nats),
        }


@dataclass(frozen=True, slots=True)
class Band:
    """A tenth of the occurrences, by their gates: the least and the widest, and a fair choice of them, the widest first."""

    low: float
    high: float
    contexts: tuple[Context, ...]

    def to_json(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "contexts": [context.to_json() for context in self.contexts]}


@dataclass(frozen=True, slots=True)
class RowContexts:
    """Where the training side reads a row. A row that it does not read has no contexts and no bands."""

    occurrences: int  # all that were counted, in `tokens` tokens of the side
    sampled: int  # of them, those that the model has read; what follows is of these
    tokens: int
    gate: Histogram  # from 0 to 1
    strongest: tuple[Context, ...]  # the widest gate first
    bands: tuple[Band, ...]  # from the lowest gates to the highest

    def to_json(self) -> dict[str, Any]:
        return {
            "occurrences": self.occurrences,
            "sampled": self.sampled,
            "tokens": self.tokens,
            "gate": self.gate.to_json(),
            "strongest": [context.to_json() for context in self.strongest],
            "bands": [band.to_json() for band in self.bands],
        }


def gates_of_ngrams(
    trained: TrainedRun, tokens: Tokens, ngrams: Sequence[tuple[int, ...]], most: int = NGRAM_SAMPLED
) -> dict[tuple[int, ...], dict[int, GateQuartiles]]:
    """By n-gram and layer, in one pass over the training side; an n-gram that it does not have has no layers.

    Raises UsageError for a run without memory, or an n-gram that is longer than the spec's orders or empty.
    """
    spec, ids = _spec(trained), tokens.ids("train")
    if wrong := [ngram for ngram in ngrams if not 1 <= len(ngram) <= spec.max_order]:
        raise UsageError(f"an n-gram of {len(wrong[0])} tokens, expected 1 to {spec.max_order}", hint="its end is what is read")
    places = Scan(ids, trained.vocab, spec).of_ngrams(ngrams, most)
    readings = _read(trained, ids, places, effects=False)
    return {
        ngram: {
            layer: _quartiles(there, readings.at(layer, _numbers(readings, there)))
            for layer in (spec.layers if there.occurrences else ())
        }
        for ngram, there in zip(ngrams, places, strict=True)
    }


def row_contexts(trained: TrainedRun, tokens: Tokens, rows: Sequence[Row], most: int = ROW_SAMPLED) -> dict[Row, RowContexts]:
    """Of each row, as (layer, row), in one pass over the training side.

    Raises UsageError for a run without memory or a row outside its table, EngramError for a layer without one.
    """
    spec, ids = _spec(trained), tokens.ids("train")
    for layer, row in rows:
        if not 0 <= row < sum(spec.moduli(layer)):
            raise UsageError(f"layer {layer} has no row {row:,}", hint=f"its rows are 0 to {sum(spec.moduli(layer)) - 1:,}")
    unique = list(dict.fromkeys(rows))
    places = Scan(ids, trained.vocab, spec).of_rows(unique, most)
    readings = _read(trained, ids, places, effects=True)
    return {row: _contexts(trained, readings, row[0], there) for row, there in zip(unique, places, strict=True)}


def _spec(trained: TrainedRun) -> HashSpec:
    if trained.store is None:
        raise UsageError("this run was trained without memory: it has no gates", hint="name a run with memory")
    return trained.store.spec


def _read(trained: TrainedRun, ids: NDArray[np.int32], places: Sequence[Places], effects: bool) -> Readings:
    """Of the positions of all places together, each once."""
    positions = np.unique(np.concatenate([np.empty(0, np.int64), *(there.positions for there in places)]))
    return read(trained, ids, positions, effects)


def _numbers(readings: Readings, places: Places) -> NDArray[np.intp]:
    """Which of the readings are of these places, in the places' order."""
    return np.searchsorted(readings.positions, places.positions)


def _quartiles(places: Places, gates: NDArray[np.float32]) -> GateQuartiles:
    low, first, median, third, high = _rounded(np.quantile(gates.astype(np.float64), (0, 0.25, 0.5, 0.75, 1)))
    return GateQuartiles(places.occurrences, len(gates), places.tokens, (first, median, third), low, high)


def _contexts(trained: TrainedRun, readings: Readings, layer: int, places: Places) -> RowContexts:
    numbers = _numbers(readings, places)
    gates = readings.at(layer, numbers).astype(np.float64)

    def shown(order: NDArray[np.intp]) -> tuple[Context, ...]:
        return tuple(_context(trained, readings, layer, number) for number in numbers[order].tolist())

    strongest = shown(np.argsort(-gates, kind="stable")[:STRONGEST])
    bands = tuple(Band(low, high, shown(chosen)) for low, high, chosen in _bands(gates))
    return RowContexts(places.occurrences, len(gates), places.tokens, Histogram.of(gates, (0, 1)), strongest, bands)


def _bands(gates: NDArray[np.float64]) -> list[tuple[float, float, NDArray[np.intp]]]:
    """The least and the widest gate of each band, and which gates are chosen for it: some of the first, the widest gate first.

    Equal gates, as there are many in a first block, are shared out among bands; fewer gates than bands make fewer bands.
    """
    parts = [part for part in np.array_split(np.argsort(gates, kind="stable"), BANDS) if len(part)]
    lows, highs = (_rounded(gates[[part[end] for part in parts]]) for end in (0, -1))
    chosen = [np.sort(part)[:PER_BAND] for part in parts]
    return [
        (low, high, which[np.argsort(-gates[which], kind="stable")])
        for low, high, which in zip(lows, highs, chosen, strict=True)
    ]


def _context(trained: TrainedRun, readings: Readings, layer: int, number: int) -> Context:
    texts = trained.vocab.texts
    effects = _rounded(readings.effects[number])
    return Context(
        tokens=tuple(texts[i] for i in readings.token_ids[number].tolist()),
        position=int(readings.places[number]),
        gates=tuple(_rounded(readings.gates[layer][number])),
        effect_nats=tuple(None if isnan(effect) else effect for effect in effects),
    )


def _rounded(values: NDArray[np.floating]) -> list[float]:
    rounded: list[float] = np.round(values.astype(np.float64), DIGITS).tolist()
    return rounded
