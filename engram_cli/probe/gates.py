"""`engram probe gates`: how far the memory's gates open, and on what."""

from typing import TYPE_CHECKING

from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir
from engram_cli.probe.options import TOKENS, Budget, CorpusFiles, PlotFile

if TYPE_CHECKING:
    from runtime.inspect.probes.gate_statistics import GatePart, GatesView

FIGURES = {
    "frequency": "times in training of the n-gram",
    "loss": "loss of the token after it",
    "saved": "nats that the memory saves there",
}


def gates(
    corpus: CorpusFiles = None,
    tokens: Budget = TOKENS,
    plot: PlotFile = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show how far the gates open, from 0 to 1, per layer and stream: mean and quartiles, on all positions and in parts.

    Parts are by how often training had the longest n-gram that ends at the position, by the class of the token there, by the
    loss of the token after it, and by what the memory saves there (the suppressed model's loss less the model's). Rank
    correlations (Spearman) are over single positions.

    Example: engram probe gates

    Example: engram probe gates --corpus notes.txt --json
    """
    from engram_cli.output import note, print_json
    from engram_cli.probe.options import Probed, check_plot, of_text
    from runtime.inspect.probes.gate_statistics import probe_gates

    check_plot(plot, force)
    probed = Probed.load(run, corpus, tokens)
    frequency = probed.frequency()
    with probed.progress() as advance:
        view = probe_gates(probed.trained, probed.windows, frequency, advance)
    if plot:
        from engram_cli.probe.plots import plot_gates

        plot_gates(plot, view)
    if json:
        print_json(view.to_json())
        return
    _print(view, of_text(view.positions, view.documents, corpus))
    if plot:
        note(f"drawn: {plot}")


def _print(view: "GatesView", text: str) -> None:
    from engram_cli.output import print_table

    names = [_name(stream.layer, stream.stream, view) for stream in view.streams]
    columns = ("", "positions", "mean", "lower quartile", "median", "upper quartile")
    whole = [[name, *_cells(stream.whole)] for name, stream in zip(names, view.streams, strict=True)]
    print_table(f"Gates at {text}", columns, whole)
    for split, title in view.titles.items():
        rows = [
            [name, part.name, *_cells(part)]
            for name, stream in zip(names, view.streams, strict=True)
            for part in stream.splits[split]
        ]
        print_table(f"By {title}", ("", "", *columns[1:]), rows, left=2)
    correlations = [
        [name, FIGURES[one.name], one.positions, "–" if one.spearman is None else f"{one.spearman:+.3f}"]
        for name, stream in zip(names, view.streams, strict=True)
        for one in stream.correlations
    ]
    print_table("Rank correlation of the gate", ("", "with", "n", "Spearman"), correlations, left=2)


def _name(layer: int, stream: int, view: "GatesView") -> str:
    """The stream is named where a layer has more than one."""
    several = any(one.stream for one in view.streams)
    return f"layer {layer}, stream {stream}" if several else f"layer {layer}"


def _cells(part: "GatePart") -> list[object]:
    return [part.positions, f"{part.mean:.3f}", *(f"{quartile:.3f}" for quartile in part.quartiles)]
