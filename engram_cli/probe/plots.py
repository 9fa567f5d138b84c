"""Pictures of the probes, one message each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engram_cli.pictures import COLOURS, MARKERS, figure_of, label, save

if TYPE_CHECKING:
    from runtime.inspect.probes.ablations import AblationView, Difference
    from runtime.inspect.probes.bootstrap import Interval
    from runtime.inspect.probes.gate_statistics import GatesView
    from runtime.inspect.probes.logit_lens import LensView
    from runtime.inspect.probes.similarity import SimilarityView
    from runtime.inspect.probes.swap import SwapView

DARK = 0.6  # of the range: cells above it have white figures
MOST_WRITTEN = 12  # blocks: in a larger matrix figures would not be legible
BY_PARTS = ("suppressed", "order", "layer")  # kinds of ablations that are drawn by parts


def plot_ablations(path: Path, view: "AblationView") -> None:
    """All differences with their intervals; beside them, where n-grams were counted, the main ones by frequency."""
    split = view.splits.get("frequency")
    figure, (axes, *more) = figure_of(2 if split else 1)
    label(axes, "What the model loses without a part", "nats per token more", "")
    ablations = view.whole.ablations
    places = np.arange(len(ablations))[::-1]
    axes.set_axisbelow(True)
    axes.barh(places, [one.difference_nats for one in ablations], color=COLOURS[0], xerr=_errors(ablations), ecolor="#444444")
    axes.set_yticks(places, [one.name for one in ablations], fontsize=8)
    axes.axvline(0, color="#444444", linewidth=0.8)
    if split:
        _draw_by_frequency(more[0], split.title, [part.name for part in split.parts], [part.ablations for part in split.parts])
    save(figure, path)


def _draw_by_frequency(axes: Any, title: str, names: Sequence[str], parts: Sequence[Sequence["Difference"]]) -> None:
    label(axes, "… by frequency of the n-gram read", title, "nats per token more")
    shown = [number for number, one in enumerate(parts[0]) if one.name.split(":")[0] in BY_PARTS]
    for number, colour, marker in zip(shown, COLOURS * len(shown), MARKERS * len(shown), strict=False):
        figures = [part[number] for part in parts]
        values = [one.difference_nats for one in figures]
        axes.errorbar(
            range(len(parts)), values, _errors(figures), marker=marker, color=colour, capsize=3, label=figures[0].name
        )
    _name_parts(axes, names)
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.legend(frameon=False, fontsize=8)


def _errors(figures: Sequence["Difference"]) -> Any:
    """(2, n) How far intervals reach below and above."""
    return np.transpose([_reach(one.difference_nats, one.ci95) for one in figures])


def _reach(value: float, bounds: "Interval | None") -> tuple[float, float]:
    """A percentile interval of a very skewed figure need not hold the figure itself."""
    return (0.0, 0.0) if bounds is None else (max(0.0, value - bounds[0]), max(0.0, bounds[1] - value))


def _name_parts(axes: Any, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), [name.replace(" beyond", "\nbeyond") for name in names], fontsize=7, rotation=20)


def plot_lens(path: Path, view: "LensView") -> None:
    figure, (axes,) = figure_of(1)
    label(axes, "How far each block is from the model's own end", "", "KL(final ‖ block), nats")
    places = range(len(view.states))
    curves = [
        ("with memory", [s.nats for s in view.states], [s.ci95 for s in view.states]),
        ("memory suppressed", [s.suppressed_nats for s in view.states], [s.suppressed_ci95 for s in view.states]),
    ]
    for (name, nats, bounds), colour, marker in zip(curves, COLOURS, MARKERS, strict=False):
        errors = np.transpose([_reach(value, found) for value, found in zip(nats, bounds, strict=True)])
        axes.errorbar(places, nats, errors, marker=marker, color=colour, capsize=3, label=name)
    few = len(places) <= MOST_WRITTEN
    axes.set_xticks(places, [s.state for s in view.states], fontsize=8 if few else 6, rotation=0 if few else 90)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    save(figure, path)


def plot_similarity(path: Path, view: "SimilarityView", names: tuple[str, str]) -> None:
    """The matrix as a heat map, and the alignment with its null."""
    figure, (axes, curve) = figure_of(2)
    matrix = view.found.matrix
    label(axes, "CKA of the blocks' outputs", f"block of {names[0]}", f"block of {names[1]}")
    axes.grid(visible=False)
    figure.colorbar(axes.imshow(matrix, vmin=0, vmax=1, cmap="Blues", origin="lower", aspect="auto"), ax=axes)
    for ticks, count in ((axes.set_xticks, matrix.shape[1]), (axes.set_yticks, matrix.shape[0])):
        ticks(range(0, count, -(-count // MOST_WRITTEN)))
    if max(matrix.shape) <= MOST_WRITTEN:
        for (i, j), value in np.ndenumerate(matrix):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > DARK else "black", fontsize=8)
    label(curve, "Which block each block is like", f"block of {names[0]}", f"block of {names[1]}")
    curve.plot(view.found.alignment, "o-", color=COLOURS[0], label="soft alignment")
    if view.null is not None:
        curve.plot(view.null.alignment, "s--", color=COLOURS[1], label="its null")
    curve.set_xticks(range(0, matrix.shape[1], -(-matrix.shape[1] // MOST_WRITTEN)))
    curve.legend(frameon=False)
    save(figure, path)


def plot_gates(path: Path, view: "GatesView") -> None:
    """A panel for each split: medians as marks, the middle half as bars, the streams side by side."""
    figure, panels = figure_of(2, -(-len(view.titles) // 2))
    for axes in panels[len(view.titles) :]:
        axes.remove()
    several = any(one.stream for one in view.streams)
    for axes, (split, title) in zip(panels, view.titles.items(), strict=False):
        label(axes, f"Gates by {title}", "", "gate, median and middle half")
        for number, stream in enumerate(view.streams):
            parts = stream.splits[split]
            shift = 0.6 * ((number + 0.5) / len(view.streams) - 0.5)
            lows, medians, highs = np.transpose([part.quartiles for part in parts])
            axes.errorbar(
                np.arange(len(parts)) + shift,
                medians,
                (medians - lows, highs - medians),
                fmt=MARKERS[number % len(MARKERS)],
                color=COLOURS[number % len(COLOURS)],
                capsize=3,
                label=f"layer {stream.layer}" + (f", stream {stream.stream}" if several else ""),
            )
        _name_parts(axes, [part.name for part in view.streams[0].splits[split]])
        axes.set_ylim(0, 1)
    panels[0].legend(frameon=False, fontsize=8)
    save(figure, path)


def _plain(text: str) -> str:
    """Text of the user's own, in which a dollar begins no formula."""
    return text.replace("$", r"\$")


def plot_swap(path: Path, view: "SwapView", phrase: str, other: str) -> None:
    figure, (axes,) = figure_of(1)
    axes.set_axisbelow(True)
    label(axes, _plain(f"{phrase!r} with the memory of {other!r}"), "probability of the next token", "")
    places = np.arange(len(view.changes))[::-1]
    bars = [
        ("before", [change.probability_before for change in view.changes]),
        ("after", [change.probability_after for change in view.changes]),
        ("after B itself", [change.probability_other for change in view.changes]),
    ]
    for number, (name, values) in enumerate(bars):
        axes.barh(places + 0.27 * (1 - number), values, 0.27, color=COLOURS[number], label=name)
    axes.set_yticks(places, [_plain(repr(change.token)) for change in view.changes], fontsize=7)
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)
