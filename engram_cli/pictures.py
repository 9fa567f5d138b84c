"""Pictures: what all that the commands draw have in common."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hashing.base.atomic import atomic_path
from hashing.base.errors import UsageError

SIZE_INCHES = (6.0, 3.8)
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e6c8a", "#c98b2b")
MARKERS = ("o", "s", "^", "D", "v")


def check_format(path: Path) -> None:
    """Raises UsageError for a picture that could not be written, before anything is computed for it."""
    if path.suffix not in {".png", ".svg"}:
        raise UsageError(f"{path} would be a picture in an unknown format", hint="name a .png or .svg file")


def figure_of(panels: int, rows: int = 1) -> tuple[Figure, list[Any]]:
    """A figure with rows of panels side by side, and their axes, row by row."""
    figure = Figure(figsize=(SIZE_INCHES[0] * panels, SIZE_INCHES[1] * rows), layout="constrained")
    return figure, figure.subplots(rows, panels, squeeze=False).ravel().tolist()


def label(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=160)
