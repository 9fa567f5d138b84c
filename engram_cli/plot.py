"""`engram plot`: the loss of several runs, against steps and against time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import DEFAULT_RUN, Force, Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

POINTS = 120  # of a training curve: each is the mean of the steps around it

Curve = Mapping[str, Any]


def plot(
    runs: Annotated[list[Path] | None, typer.Argument(help="Runs to draw side by side. Default: the default run.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The picture, FILE.png or FILE.svg.")] = Path("loss.png"),
    force: Force = False,
    json: Json = False,
) -> None:
    """Draw the loss of trainings: every step's, and that of the validations, against steps and against time.

    Example: engram plot

    Example: engram plot runs/demo runs/demo/control --out loss.svg
    """
    from engram_cli.output import note, print_json, print_table
    from engram_cli.pictures import check_format
    from hashing.base.atomic import refuse_overwrite

    check_format(out)
    curves = {run: _lines(run) for run in dict.fromkeys(runs or [DEFAULT_RUN])}
    refuse_overwrite(out, force)  # what is missing is told before what is in the way
    _draw(out, _names(list(curves)), list(curves.values()))
    ends = [_end(run, lines) for run, lines in curves.items()]
    if json:
        print_json({"picture": str(out), "runs": ends})
        return
    columns = ("run", "steps", "minutes", "training loss", "validation", "best validation")
    shown = ("loss_nats", "validation_nats", "best_nats")
    rows = ((end["run"], end["steps"], f"{end['elapsed_sec'] / 60:.1f}", *(_shown(end[key]) for key in shown)) for end in ends)
    print_table("Nats per token", columns, rows)
    note(f"drawn: {out}")


def _lines(run: Path) -> list[dict[str, Any]]:
    """A training's metrics. Raises EngramError where there are none."""
    from hashing.base.errors import EngramError
    from runtime.run import Run
    from runtime.train.metrics import Metrics

    source = Run(run)
    source.require(source.train_folder, "train")
    if not (lines := list(Metrics(source.train_folder).lines())):
        hint = f"{source.command('train --resume')} goes on with it"
        raise EngramError(f"the training in {run} has not taken a step yet", hint=hint)
    return lines


def _end(run: Path, lines: Sequence[Curve]) -> dict[str, Any]:
    validated = [line["validation_nats"] for line in lines if "validation_nats" in line]
    return {
        "run": str(run),
        "steps": lines[-1]["step"],
        "elapsed_sec": lines[-1].get("elapsed_sec", 0.0),
        "loss_nats": lines[-1]["loss_nats"],
        "validation_nats": validated[-1] if validated else None,
        "best_nats": min(validated, default=None),
    }


def _shown(nats: float | None) -> str:
    return "–" if nats is None else f"{nats:.4f}"


def _names(runs: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    for parts in range(1, max(len(run.parts) for run in runs) + 1):
        names = ["/".join(run.parts[-parts:]) for run in runs]
        if len(set(names)) == len(names):
            break
    return names


def _draw(path: Path, names: Sequence[str], runs: Sequence[Sequence[Curve]]) -> None:
    from engram_cli.pictures import COLOURS, figure_of, label, save

    figure, panels = figure_of(2)
    for axes, key, x, scale in zip(panels, ("step", "elapsed_sec"), ("steps", "minutes"), (1, 60), strict=True):
        label(axes, f"Loss against {x}", x, "nats per token")
        for number, (name, lines) in enumerate(zip(names, runs, strict=True)):
            timed = [line for line in lines if key in line]
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(*_smoothed(timed, key, scale), color=colour, alpha=0.35, linewidth=1)
            validated = [line for line in timed if "validation_nats" in line]
            shown = [line["validation_nats"] for line in validated]
            axes.plot([line[key] / scale for line in validated], shown, "o-", color=colour, markersize=4, label=name)
        axes.legend(frameon=False, title="line with dots: validation; faint: training", title_fontsize=8, fontsize=8)
    save(figure, path)


def _smoothed(lines: Sequence[Curve], key: str, scale: float) -> "tuple[NDArray[Any], NDArray[Any]]":
    """The training loss in POINTS points, each the mean of neighbouring steps."""
    import numpy as np

    places = np.array([line[key] / scale for line in lines], np.float64)
    losses = np.array([line["loss_nats"] for line in lines], np.float64)
    parts = np.array_split(np.arange(len(lines)), min(POINTS, len(lines))) if lines else []
    return np.array([places[part].mean() for part in parts]), np.array([losses[part].mean() for part in parts])
