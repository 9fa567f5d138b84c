"""The picture of a sweep: losses on both domains, and questions answered, arm by arm or against what the arms are sized by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engram_cli.pictures import COLOURS, MARKERS, figure_of, label, save

SIZED = {
    "rows": "rows of a head",
    "allocation": "percent of the sparse parameters in experts",
}  # by the number in an arm's name
LOSSES = {"nats": "Validation", "other_domain_nats": "Another domain"}
QUESTIONS = ("facts", "paraphrase", "reading")
CHANCE = 5  # percent


def plot_sweep(path: Path, found: dict[str, Any]) -> None:
    figure, panels = figure_of(len(LOSSES) + 1)
    size = SIZED.get(found["name"], "")
    sized = [arm for arm in found["arms"] if arm["name"].rpartition("-")[2].isdecimal()] if size else []
    for axes, (key, title) in zip(panels, LOSSES.items(), strict=False):
        if size:
            _draw_sized_loss(axes, title, size, key, sized, found["arms"])
        else:
            _draw_losses(axes, title, key, found["arms"])
    if size:
        _draw_sized_answers(panels[-1], size, sized)
    else:
        _draw_answers(panels[-1], found["arms"])
    if found["name"] == "rows":
        for axes in panels:
            axes.set_xscale("log")
    save(figure, path)


def _names(axes: Any, arms: Sequence[dict[str, Any]]) -> list[int]:
    """The places of arms from the top down, with their names beside them."""
    places = [*range(len(arms) - 1, -1, -1)]
    axes.set_yticks(places, [arm["name"] for arm in arms], fontsize=8)
    axes.set_axisbelow(True)
    return places


def _draw_losses(axes: Any, title: str, key: str, arms: Sequence[dict[str, Any]]) -> None:
    """Marks, with the spread over seeds where that is known."""
    label(axes, title, "nats per token", "")
    places = _names(axes, arms)
    spread = [arm["nats_std"] or 0.0 for arm in arms] if key == "nats" else None
    axes.errorbar([arm[key] for arm in arms], places, xerr=spread, fmt="o", color=COLOURS[0], capsize=3)
    axes.axvline(arms[0][key], color="#888888", linewidth=0.8, linestyle="--")


def _draw_answers(axes: Any, arms: Sequence[dict[str, Any]]) -> None:
    label(axes, "Questions right; hollow: memory suppressed", "percent", "")
    places = _names(axes, arms)
    for number, kind in enumerate(QUESTIONS):
        at = [place + 0.22 * (1 - number) for place in places]
        colour, marker = COLOURS[number], MARKERS[number]
        axes.plot([arm[f"{kind}_percent"] for arm in arms], at, marker, color=colour, label=kind)
        hollow = [(arm[f"{kind}_suppressed_percent"], y) for arm, y in zip(arms, at, strict=True)]
        shown = [(x, y) for x, y in hollow if x is not None]
        axes.plot([x for x, _ in shown], [y for _, y in shown], marker, color=colour, fillstyle="none")
    axes.axvline(CHANCE, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 100)
    axes.legend(frameon=False, fontsize=8)


def _sizes(arms: Sequence[dict[str, Any]]) -> list[int]:
    return [int(arm["name"].rpartition("-")[2]) for arm in arms]


def _draw_sized_loss(
    axes: Any, title: str, size: str, key: str, sized: Sequence[dict[str, Any]], arms: Sequence[dict[str, Any]]
) -> None:
    label(axes, title, size, "nats per token")
    ordered = sorted(sized, key=lambda arm: _sizes([arm]))
    spread = [arm["nats_std"] or 0.0 for arm in ordered] if key == "nats" else None
    axes.errorbar(_sizes(ordered), [arm[key] for arm in ordered], yerr=spread, fmt="o-", color=COLOURS[0], capsize=3)
    for arm in arms:
        if arm not in sized:
            axes.axhline(arm[key], color=COLOURS[1], linewidth=1, linestyle="--", label=arm["name"])
            axes.legend(frameon=False, fontsize=8)


def _draw_sized_answers(axes: Any, size: str, sized: Sequence[dict[str, Any]]) -> None:
    label(axes, "Questions right", size, "percent")
    ordered = sorted(sized, key=lambda arm: _sizes([arm]))
    for number, kind in enumerate(QUESTIONS):
        found = [arm[f"{kind}_percent"] for arm in ordered]
        axes.plot(_sizes(ordered), found, f"{MARKERS[number]}-", color=COLOURS[number], label=kind)
    axes.axhline(CHANCE, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, fontsize=8)
