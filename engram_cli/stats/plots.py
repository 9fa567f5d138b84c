"""Pictures of the statistics, one message each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from engram_cli.pictures import COLOURS, MARKERS, figure_of, label, save

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hashing.ngrams.collisions import CurvePoint, HeadCollisions
    from hashing.ngrams.traffic import MissCurve


def _axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure, (axes,) = figure_of(1)
    label(axes, title, x, y)
    return figure, axes


def plot_ranks(path: Path, counts: "Mapping[int, NDArray[np.int64]]") -> None:
    figure, axes = _axes("How often the n-grams occur", "rank of the n-gram", "occurrences")
    for (order, found), colour in zip(counts.items(), COLOURS, strict=False):
        ordered = np.sort(found)[::-1]
        ranks = np.unique(np.geomspace(1, len(ordered), 400).astype(int))
        axes.plot(ranks, ordered[ranks - 1], color=colour, label=f"{order}-grams ({len(ordered):,} distinct)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    save(figure, path)


def plot_occupancy(path: Path, heads: "Sequence[HeadCollisions]") -> None:
    figure, axes = _axes(
        "Do the tables fill as a uniform hash would fill them?",
        "layer; the heads of each order side by side",
        "deviation (z)",
    )
    heads = sorted(heads, key=lambda head: (head.layer, head.order, head.head))
    orders, layers = sorted({head.order for head in heads}), sorted({head.layer for head in heads})
    per_layer = len(heads) // len(layers)
    axes.set_xticks([(i + 0.5) * per_layer - 0.5 for i in range(len(layers))], [str(layer) for layer in layers])
    for edge in range(1, len(layers)):
        axes.axvline(edge * per_layer - 0.5, color="#888888", linewidth=0.8)
    for order, colour, marker in zip(orders, COLOURS, MARKERS, strict=False):
        places = [place for place, head in enumerate(heads) if head.order == order]
        axes.plot(places, [heads[p].occupied.z for p in places], marker, color=colour, markersize=5, label=f"{order}-grams")
    axes.axhspan(-3, 3, color="#888888", alpha=0.15, linewidth=0, label="uniform, ±3 standard deviations")
    reach = max(4.0, *(abs(head.occupied.z) * 1.15 for head in heads if head.occupied.z == head.occupied.z))
    axes.set_ylim(-reach, reach)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save(figure, path)


def plot_collisions(path: Path, curve: "Sequence[CurvePoint]") -> None:
    """Points are measured, lines are what a uniform hash gives."""
    from hashing.ngrams.collisions import alone_probability

    figure, axes = _axes("Larger tables, fewer shared rows", "rows per head", "distinct n-grams that share their row")
    bases = np.geomspace(min(p.base for p in curve), max(p.base for p in curve), 200)
    for order, colour, marker in zip(sorted({p.order for p in curve}), COLOURS, MARKERS, strict=False):
        points = [p for p in curve if p.order == order]
        measured = [p.base for p in points]
        shared = np.array([1 - alone_probability(points[0].distinct, int(base)) for base in bases])
        axes.plot(bases, 100 * shared, color=colour, linewidth=1)
        axes.plot(bases, 100 * shared ** points[0].heads, "--", color=colour, linewidth=1)
        axes.plot(measured, [p.shared_percent for p in points], marker, color=colour, label=f"{order}-grams, in one head")
        in_all = [p.shared_in_all_percent for p in points]
        axes.plot(measured, in_all, marker, color=colour, fillstyle="none", label=f"{order}-grams, in every head")
    axes.plot([], [], color="#444444", linewidth=1, label="lines: a uniform hash (dashed: in every head)")
    axes.set_xscale("log")
    axes.set_ylim(-2, 102)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save(figure, path)


def plot_misses(path: Path, curves: "Sequence[tuple[str, MissCurve]]", row_bytes: int) -> None:
    figure, axes = _axes("What an LRU cache of rows misses", "cache size", "reads missed, first reads included")
    for (name, curve), colour in zip(curves, COLOURS * len(curves), strict=False):
        size_bytes, percent = curve.cache_rows * row_bytes, 100 * curve.miss_ratio
        axes.plot(size_bytes, percent, color=colour, label=name)
        if not curve.exact:
            axes.fill_between(size_bytes, percent - 200 * curve.error, percent + 200 * curve.error, color=colour, alpha=0.2)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: _bytes(size)))
    axes.set_ylim(0, 100)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)


def _bytes(size: float) -> str:
    from engram_cli.output import byte_text

    return byte_text(size).replace(".0 ", " ")
