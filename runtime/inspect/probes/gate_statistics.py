"""Gate statistics: how far the memory's gates open, and on what.

There is one gate, from 0 to 1, for each memory layer, residual stream and position. Here are its mean and quartiles: over all
judged positions; by how often training had the longest n-gram that ends at the position; by the class of the token there; by
what the model loses on the token after it, with its memory; and by what the memory saves there, which is what the suppressed
model loses more. Beside them stand Spearman's rank correlations of the gate with the count and with both losses, over n
positions. Gates and losses are as the model runs, in the precision of its training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.inspect.gates import watching_gates
from runtime.inspect.probes.frequency import Frequency
from runtime.inspect.probes.probed_text import Positions
from runtime.inspect.probes.rank_correlation import spearman
from runtime.inspect.probes.splits import Split, by_class, by_count, by_size
from runtime.inspect.threads import few_threads
from runtime.trained_run import TrainedRun
from runtime.validation import token_losses
from runtime.windows import CONTEXT, Side, Texts


@dataclass(frozen=True, slots=True)
class GatePart:
    """The gates at some positions."""

    name: str
    positions: int
    mean: float
    quartiles: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Correlation:
    """Of the gate with a figure of the same positions."""

    name: str
    positions: int  # n
    spearman: float | None  # None where either does not vary


@dataclass(frozen=True, slots=True)
class StreamView:
    layer: int
    stream: int
    whole: GatePart
    splits: Mapping[str, tuple[GatePart, ...]]  # by the name of the split; parts that have positions
    correlations: tuple[Correlation, ...]


@dataclass(frozen=True, slots=True)
class GatesView:
    positions: int
    documents: int
    titles: Mapping[str, str]  # of the splits, by their names: what their parts differ in
    streams: tuple[StreamView, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JudgedGates:
    """Of all judged positions, P of them."""

    gates: Mapping[int, NDArray[np.float32]]  # layer → (P, streams)
    loss_nats: NDArray[np.float32]  # (P,) of the token after each, with the memory
    suppressed_nats: NDArray[np.float32]  # (P,)

    @classmethod
    def of(cls, trained: TrainedRun, windows: Side | Texts, advance: Callable[[int], None]) -> "JudgedGates":
        lookup, model, precision = trained.lookup("mapped"), trained.model, trained.config.precision
        assert lookup is not None, "commands refuse a run without memory"
        pieces = []
        with few_threads(model):
            for block in windows:
                judged, vectors = block.documents != CONTEXT, lookup.vectors(block.inputs)
                with watching_gates(model) as found:
                    own = token_losses(model, block, precision, vectors)
                suppressed = token_losses(model, block, precision, None)
                gates = [found[layer].float().cpu().numpy() for layer in trained.config.layers]
                pieces.append([part[judged] for part in (own, suppressed, *gates)])
                advance(1)
        own, suppressed, *gates = (np.concatenate(column) for column in zip(*pieces, strict=True))
        return cls(dict(zip(trained.config.layers, gates, strict=True)), own, suppressed)


def probe_gates(
    trained: TrainedRun,
    windows: Side | Texts,
    frequency: Frequency | None,
    advance: Callable[[int], None] = lambda _: None,
) -> GatesView:
    """`advance` hears of every block of windows."""
    assert trained.store is not None
    judged = JudgedGates.of(trained, windows, advance)
    positions = Positions.of(windows, trained.vocab, trained.store.spec.max_order)
    saved = judged.suppressed_nats - judged.loss_nats
    splits = {
        "class": by_class(positions.read_classes, "token at the position"),
        "loss": by_size(judged.loss_nats, "loss of the token after it, nats"),
        "saved": by_size(saved, "nats that the memory saves there"),
    }
    figures: dict[str, NDArray[Any]] = {"loss": judged.loss_nats, "saved": saved}
    if frequency:
        counts = frequency.of_ngrams(positions.ngrams)
        title = f"times in training of the {positions.ngrams.shape[1]}-gram that ends there"
        splits = {"frequency": by_count(counts, title), **splits}
        figures = {"frequency": counts, **figures}
    streams = [
        _stream(layer, stream, gates[:, stream], splits, figures)
        for layer, gates in judged.gates.items()
        for stream in range(gates.shape[1])
    ]
    titles = {name: split.title for name, split in splits.items()}
    return GatesView(len(saved), len(np.unique(positions.documents)), titles, tuple(streams))


def _stream(
    layer: int, stream: int, gate: NDArray[np.float32], splits: Mapping[str, Split], figures: Mapping[str, NDArray[Any]]
) -> StreamView:
    return StreamView(
        layer,
        stream,
        _part("all", gate),
        {name: _parts(split, gate) for name, split in splits.items()},
        tuple(_correlation(name, gate, figure) for name, figure in figures.items()),
    )


def _parts(split: Split, gate: NDArray[np.float32]) -> tuple[GatePart, ...]:
    inside: Sequence[NDArray[np.float32]] = [gate[split.parts == number] for number in range(len(split.names))]
    return tuple(_part(name, gates) for name, gates in zip(split.names, inside, strict=True) if len(gates))


def _part(name: str, gate: NDArray[np.float32]) -> GatePart:
    low, median, high = np.quantile(gate, (0.25, 0.5, 0.75)).tolist()
    return GatePart(name, len(gate), float(gate.mean(dtype=np.float64)), (low, median, high))


def _correlation(name: str, gate: NDArray[np.float32], figure: NDArray[Any]) -> Correlation:
    """Where an n-gram reaches back beyond the text its count, below 0, is not known."""
    known = figure >= 0 if name == "frequency" else np.ones(len(gate), bool)
    return Correlation(name, int(known.sum()), spearman(gate[known], figure[known]))
