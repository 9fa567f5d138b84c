"""`engram probe swap`: one phrase with another phrase's memory."""

from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir
from engram_cli.probe.options import PlotFile

if TYPE_CHECKING:
    from runtime.inspect.probes.swap import SwapView


def swap(
    phrase: Annotated[str, typer.Argument(metavar="A", help="The phrase that the model reads.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The phrase whose n-grams the memory has at A's last token.")],
    layer: Annotated[
        list[int] | None, typer.Option(help="A layer whose memory is swapped; repeat for more. Default: all.")
    ] = None,
    plot: PlotFile = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Give a phrase the memory of another at its last token, and show what that changes in the prediction.

    The likeliest tokens before and after, with their probabilities there and after phrase B itself; KL(before ‖ after) in nats;
    and the gates at the last token. Both phrases stand at the beginning of a text.

    Example: engram probe swap "if x is not" "import numpy as"

    Example: engram probe swap "for i in" "while not" --layer 1 --plot swap.png
    """
    from engram_cli.output import note, print_json
    from engram_cli.probe.options import check_plot, phrase_tokens
    from runtime.device import default_device
    from runtime.inspect.probes.swap import probe_swap
    from runtime.run import Run
    from runtime.trained_run import TrainedRun

    check_plot(plot, force)
    source = Run(run)
    source.require_memory()
    with source.reading():
        trained = TrainedRun.load(source, default_device())
    own, others = (phrase_tokens(trained, text) for text in (phrase, other))
    view = probe_swap(trained, own, others, layer or [])
    if plot:
        from engram_cli.probe.plots import plot_swap

        plot_swap(plot, view, phrase, other)
    if json:
        print_json(view.to_json())
        return
    _print(view)
    if plot:
        note(f"drawn: {plot}")


def _print(view: "SwapView") -> None:
    from engram_cli.output import note, print_table

    rows = [
        (repr(c.token), *(f"{100 * p:.2f}" for p in (c.probability_before, c.probability_after, c.probability_other)))
        for c in view.changes
    ]
    own, others = (" · ".join(map(repr, tokens)) for tokens in (view.tokens, view.other_tokens))
    layers = ", ".join(map(str, view.layers))
    print_table(
        f"Next token, percent; KL(before ‖ after) {view.kl_nats:.3f} nats", ("token", "before", "after", "after B itself"), rows
    )
    shown = [
        (layer, stream, f"{before:.3f}", f"{after:.3f}")
        for layer, gate in view.gates.items()
        for stream, (before, after) in enumerate(zip(gate.before, gate.after, strict=True))
    ]
    print_table("Gates at the last token", ("layer", "stream", "before", "after"), shown, left=2)
    note(f"A is {own}; B is {others}; swapped: the memory of layer{'s' * (len(view.layers) > 1)} {layers} at A's last token")
