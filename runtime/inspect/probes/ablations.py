"""Ablations as a probe: what each part of a memory is worth, and on which tokens.

Each variant of the model is judged on the same tokens: without a layer, an order, a head; with the gate held at 0.5 or at 1;
without the convolution; with the mean row in place of rows; with the memory suppressed. What a variant loses more than the
model as it is, is given with an interval by documents (`bootstrap.py`), over all tokens and over parts of them: by how often
training had the longest n-gram that the memory reads where the token is predicted, which ends at the token before it; by the
predicted token's class; and by its place in a word.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import UsageError
from hashing.spec import HashSpec
from runtime.ablation import (
    Variant,
    gate_held,
    in_place_of_rows,
    intact,
    mean_rows,
    named_ablations,
    suppressed,
    without_convolution,
)
from runtime.evaluation import WITH_MEMORY, evaluate
from runtime.inspect.probes.bootstrap import LEVEL_PERCENT, RESAMPLES, SEED, Interval, mean_intervals
from runtime.inspect.probes.frequency import Frequency
from runtime.inspect.probes.probed_text import Positions
from runtime.inspect.probes.splits import Split, by_class, by_count, by_place
from runtime.inspect.threads import few_threads
from runtime.placement.row_source import RowSource
from runtime.trained_run import TrainedRun
from runtime.windows import Side, Texts

SUPPRESSED, MEAN_ROW, NO_CONVOLUTION = "suppressed", "mean-row", "conv"
GATES = {"gate:0.5": 0.5, "gate:1": 1.0}


@dataclass(frozen=True, slots=True)
class Difference:
    """What a variant loses on some tokens, and how much more that is than the model as it is."""

    name: str
    nats: float
    difference_nats: float
    ci95: Interval | None  # of the difference; None where the tokens are of one document


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the tokens."""

    name: str
    tokens: int
    documents: int
    nats: float  # per token, of the model as it is
    ablations: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class SplitView:
    title: str
    parts: tuple[Part, ...]  # those that have tokens


@dataclass(frozen=True, slots=True)
class AblationView:
    whole: Part
    splits: Mapping[str, SplitView]  # by `frequency`, `class`, `position`; without the first where nothing was counted

    def to_json(self) -> dict[str, Any]:
        whole = asdict(self.whole)
        splits = {name: asdict(split) for name, split in self.splits.items()}
        bootstrap = {"resamples": RESAMPLES, "seed": SEED, "level_percent": LEVEL_PERCENT, "by": "documents"}
        return {key: whole[key] for key in ("tokens", "documents", "nats", "ablations")} | {
            "splits": splits,
            "bootstrap": bootstrap,
        }


def ablated_variants(trained: TrainedRun, only: Sequence[str] = ()) -> dict[str, Variant]:
    """Those of a run. Raises UsageError as `named_variants` does."""
    assert trained.store is not None, "commands refuse a run without memory"
    memory = trained.config.model.memory
    assert memory is not None
    return named_variants(trained.store.spec, trained.tables, memory.conv, only)


def named_variants(
    spec: HashSpec, tables: Mapping[int, RowSource], convolves: bool, only: Sequence[str] = ()
) -> dict[str, Variant]:
    """By name, with the model as it is first; `only` names some of them, or a kind of them as `head`.

    Raises UsageError for a name that there is not.
    """
    parts: dict[str, Variant] = {**named_ablations(spec), **{name: gate_held(value) for name, value in GATES.items()}}
    if convolves:
        parts[NO_CONVOLUTION] = without_convolution()
    names = [SUPPRESSED, MEAN_ROW, *parts]
    for name in only:
        if not any(is_wanted(variant, [name]) for variant in names):
            raise UsageError(f"there is no ablation {name!r}", hint=f"this model has {', '.join(names)}")
    found: dict[str, Variant] = {SUPPRESSED: suppressed}
    if is_wanted(MEAN_ROW, only):  # a pass over the tables
        found[MEAN_ROW] = in_place_of_rows(mean_rows(tables, spec))
    found |= parts
    return {WITH_MEMORY: intact, **{name: variant for name, variant in found.items() if is_wanted(name, only)}}


def is_wanted(variant: str, only: Sequence[str]) -> bool:
    return not only or variant in only or variant.split(":")[0] in only


def probe_ablations(
    trained: TrainedRun,
    windows: Side | Texts,
    frequency: Frequency | None,
    variants: Mapping[str, Variant],
    advance: Callable[[int], None] = lambda _: None,
) -> AblationView:
    """`variants` are those of `ablated_variants`, the model as it is first; `advance` hears of every block of windows."""
    assert trained.store is not None
    lookup, precision = trained.lookup("mapped"), trained.config.precision
    with few_threads(trained.model):
        judged = evaluate(trained.model, precision, lookup, windows, variants, list(variants), advance)
    positions = Positions.of(windows, trained.vocab, trained.store.spec.max_order)
    nats = {name: found.astype(np.float64) for name, found in judged.token_nats.items()}
    splits = {
        "class": by_class(positions.predicted_classes, "token that is predicted"),
        "position": by_place(positions.predicted_places, "place in a word of the predicted token"),
    }
    if frequency:
        title = f"times in training of the {positions.ngrams.shape[1]}-gram read"
        splits = {"frequency": by_count(frequency.of_ngrams(positions.ngrams), title), **splits}
    everything = Split("", ("all",), np.zeros(len(positions.documents), np.int64))
    return AblationView(
        parts_of(everything, positions.documents, nats)[0],
        {name: SplitView(split.title, parts_of(split, positions.documents, nats)) for name, split in splits.items()},
    )


def parts_of(split: Split, documents: NDArray[np.int64], nats: Mapping[str, NDArray[np.float64]]) -> tuple[Part, ...]:
    """Of the nats (T,) of each variant, the intact one first."""
    own, *others = nats.values()
    differences = np.stack([other - own for other in others])
    intervals = mean_intervals(documents, differences, split.parts, len(split.names))
    parts = []
    for number, (name, size) in enumerate(zip(split.names, split.sizes.tolist(), strict=True)):
        if not size:
            continue
        inside = split.parts == number
        figures = [
            Difference(variant, float(other[inside].mean()), float(difference[inside].mean()), found[number])
            for variant, other, difference, found in zip(list(nats)[1:], others, differences, intervals, strict=True)
        ]
        of = len(np.unique(documents[inside]))
        parts.append(Part(name, size, of, float(own[inside].mean()), tuple(figures)))
    return tuple(parts)
