"""`engram probe ablate`: what each part of the memory is worth, and on which tokens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Force, Json, ModelFolder, ModelStore, RunDir
from engram_cli.probe.options import TOKENS, Budget, CorpusFiles, PlotFile

if TYPE_CHECKING:
    from runtime.inspect.probes.ablations import AblationView, Difference, SplitView

MEANINGS = {
    "suppressed": "the memory off",
    "mean-row": "the mean row in place of every row",
    "layer": "without this layer's memory",
    "order": "without n-grams of this order",
    "head": "without one head of an order",
    "gate": "every gate held there",
    "conv": "no convolution",
}


def ablate(
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this one, as order:3, or all of a kind, as head; repeat for more. Default: all."),
    ] = None,
    corpus: CorpusFiles = None,
    tokens: Budget = TOKENS,
    plot: PlotFile = None,
    model: ModelFolder = None,
    store: ModelStore = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure what the model loses without a layer, an order, a head; with its gates held; without the convolution; with the
    mean row in place of rows; with the memory suppressed.

    Every variant is judged on the same tokens. Each difference comes with the interval that 95 % of 1,000 bootstrap draws of
    documents span, over all tokens and in parts: by how often training had the longest n-gram read where a token is predicted,
    which ends at the token before it; by the predicted token's class; by its place in a word.

    Example: engram probe ablate

    Example: engram probe ablate --only order --only suppressed --corpus notes.txt --plot ablations.png

    Example: engram probe ablate --model Qwen3.8-Flash-Next --corpus notes.txt
    """
    from engram_cli.output import note, print_json
    from engram_cli.probe.options import check_plot, of_text

    check_plot(plot, force)
    named = corpus, tokens, only or []
    view = _of_run(run, *named) if model is None else _of_library(model, store, *named)
    if plot:
        from engram_cli.probe.plots import plot_ablations

        plot_ablations(plot, view)
    if json:
        print_json(view.to_json())
        return
    _print(view, of_text(view.whole.tokens, view.whole.documents, corpus))
    if plot:
        note(f"drawn: {plot}")


def _of_run(run: Path, corpus: list[Path] | None, tokens: int, only: list[str]) -> "AblationView":
    from engram_cli.probe.options import Probed
    from runtime.inspect.probes.ablations import ablated_variants, probe_ablations

    probed = Probed.load(run, corpus, tokens)
    variants = ablated_variants(probed.trained, only)
    frequency = probed.frequency()
    with probed.progress() as advance:
        return probe_ablations(probed.trained, probed.windows, frequency, variants, advance)


def _of_library(model: Path, store: Path | None, corpus: list[Path] | None, tokens: int, only: list[str]) -> "AblationView":
    """Raises UsageError where no text is named."""
    from engram_cli.output import progress
    from hashing.base.errors import UsageError
    from runtime.inspect.probes.library_ablations import probe_library_ablations

    if not corpus:
        raise UsageError("a --model has no corpus of its own", hint="--corpus names text to look at")
    with progress("batches") as bar:
        task = bar.add_task("reading")
        return probe_library_ablations(
            model, store, corpus, tokens, only, lambda done, total: bar.update(task, completed=done, total=total)
        )


def _print(view: "AblationView", text: str) -> None:
    from engram_cli.output import note, print_table
    from engram_cli.probe.options import interval

    rows = [["as it is", "", f"{view.whole.nats:.4f}", "", ""]]
    rows += [
        [one.name, MEANINGS[one.name.split(":")[0]], f"{one.nats:.4f}", f"{one.difference_nats:+.4f}", interval(one.ci95)]
        for one in view.whole.ablations
    ]
    print_table(f"Loss on {text}", ("", "variant", "nats per token", "more", "95 % interval"), rows, left=2)
    for split in view.splits.values():
        _print_split(split)
    if any(one.name.startswith("head:") for one in view.whole.ablations):
        note("single heads by parts are in --json")
    note("a variant is this model with a part changed, not what a model trained that way would reach")


def _print_split(split: "SplitView") -> None:
    """A table of the differences, a column for each part; single heads are left out where there is more to see."""
    from engram_cli.output import print_table
    from engram_cli.probe.options import interval

    def cell(one: "Difference") -> str:
        return f"{one.difference_nats:+.2f} ({interval(one.ci95, '+.2f')})"

    names = [one.name for one in split.parts[0].ablations]
    shown = [number for number, name in enumerate(names) if not name.startswith("head:")] or [*range(len(names))]
    rows: list[list[object]] = [
        ["tokens", *(part.tokens for part in split.parts)],
        ["nats as it is", *(f"{part.nats:.3f}" for part in split.parts)],
    ]
    rows += [[names[number], *(cell(part.ablations[number]) for part in split.parts)] for number in shown]
    print_table(f"More nats per token, by {split.title}", ["", *(part.name for part in split.parts)], rows)
