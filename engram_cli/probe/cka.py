"""`engram probe cka`: which block of one model is like which of another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Force, Json
from engram_cli.probe.options import TOKENS, Budget, CorpusFiles, PlotFile

if TYPE_CHECKING:
    from runtime.inspect.probes.similarity import Reader, SimilarityView
    from runtime.trained_run import TrainedRun

SUPPRESSED = "itself, memory suppressed"


def cka(
    corpus: CorpusFiles = None,
    tokens: Budget = TOKENS,
    other: Annotated[
        Path | None,
        typer.Option("--with", help="Another run on the same tokenizer. Default: the run itself with its memory suppressed."),
    ] = None,
    null: Annotated[
        Path | None, typer.Option("--null", help="A run like the one compared with but for its seed, for the null.")
    ] = None,
    plot: PlotFile = None,
    run: Annotated[Path, typer.Option("--run", help="The run whose blocks are placed among the other's.")] = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Compare the blocks of two models by linear CKA, and place each block of the run among the other's.

    Unbiased HSIC, summed over mini-batches before the ratio; states are the blocks' outputs at up to 4,096 ends of words, drawn
    from the text. Soft alignment is the mean number of the five most similar blocks, weighted by similarity; blocks are
    counted from 0.

    It is given less its null, the alignment of two models that differ in their seed alone: --null is the model compared with,
    of another seed. Without one, the model compared with is aligned with itself, which takes off what the ends of a stack do
    to the five, but not what a seed does. For a run and its suppressed self, who share their seed, that is all.

    Example: engram probe cka

    Example: engram probe cka --run runs/demo --with runs/demo/control --plot cka.png
    """
    from engram_cli.output import note, print_json
    from engram_cli.probe.options import Probed, check_plot
    from runtime.inspect.probes.similarity import MOST_SIMILAR, probe_similarity, reader

    check_plot(plot, force)
    probed = Probed.load(run, corpus, tokens, needs_memory=other is None)
    second = _other(other, probed.trained) if other else reader(probed.trained, memory=False)
    as_null = _other(null, probed.trained, memory=other is not None) if null else None
    with probed.progress() as advance:
        view = probe_similarity(reader(probed.trained), second, as_null, probed.windows, probed.trained.vocab, advance)
    names = str(run), str(other or SUPPRESSED)
    null_name = str(null) if null else f"{names[1]}, with itself"
    if plot:
        from engram_cli.probe.plots import plot_similarity

        plot_similarity(plot, view, names)
    if json:
        print_json({"run": names[0], "with": names[1], "null": null_name if view.null else None, **view.to_json()})
        return
    _print(view, names, null_name)
    if len(view.found.matrix) <= MOST_SIMILAR:
        note(f"the other has {len(view.found.matrix)} blocks, so all of them weigh in: a place is drawn towards the middle")
    if view.null is None:
        note("there is no null: the other has another number of blocks; --null names one")
    elif other and not null:
        note("the null is the other run with itself; --null RUN, another seed of it, also shows what a seed does")
    if plot:
        note(f"drawn: {plot}")


def _other(folder: Path, trained: "TrainedRun", memory: bool = True) -> "Reader":
    from runtime.device import default_device
    from runtime.inspect.probes.similarity import check_same_tokens, reader
    from runtime.run import Run
    from runtime.trained_run import TrainedRun

    found = TrainedRun.load(Run(folder), default_device())
    check_same_tokens(trained.vocab, found.vocab)
    return reader(found, memory)


def _print(view: "SimilarityView", names: tuple[str, str], null_name: str) -> None:
    from engram_cli.output import print_table

    blocks = range(view.found.matrix.shape[1])
    rows = [[f"block {i}", *(f"{cell:.3f}" for cell in row)] for i, row in enumerate(view.found.matrix.tolist())]
    title = f"CKA at {view.positions:,} ends of words; columns: {names[0]}, rows: {names[1]}"
    print_table(title, ["", *(f"block {j}" for j in blocks)], rows)
    curves = [("like block", view.found.alignment)]
    if view.null is not None and view.less_null is not None:
        curves += [(f"null: {null_name}", view.null.alignment), ("less the null", view.less_null)]
    rows = [
        [name, *(f"{value:+.2f}" if name.startswith("less") else f"{value:.2f}" for value in curve)] for name, curve in curves
    ]
    print_table(f"Soft alignment of the blocks of {names[0]}", ["", *(f"block {j}" for j in blocks)], rows)
