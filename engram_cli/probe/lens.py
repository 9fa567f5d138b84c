"""`engram probe lens`: how early a prediction is there, with the memory and without."""

from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir
from engram_cli.probe.options import TOKENS, Budget, CorpusFiles, PlotFile


def lens(
    corpus: CorpusFiles = None,
    tokens: Budget = TOKENS,
    plot: PlotFile = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure how far each block's logit lens is from the model's prediction, with the memory and with it suppressed.

    A block's output goes through the model's final norm and output head. The figure is KL(final ‖ block) in nats, the mean over
    tokens, each model against its own end; intervals are of 95 % of 1,000 bootstrap draws of documents.

    Example: engram probe lens

    Example: engram probe lens --tokens 65536 --plot lens.svg
    """
    from engram_cli.output import note, print_json, print_table
    from engram_cli.probe.options import Probed, check_plot, interval, of_text
    from runtime.inspect.probes.logit_lens import probe_lens

    check_plot(plot, force)
    probed = Probed.load(run, corpus, tokens)
    with probed.progress() as advance:
        view = probe_lens(probed.trained, probed.windows, advance)
    if plot:
        from engram_cli.probe.plots import plot_lens

        plot_lens(plot, view)
    if json:
        print_json(view.to_json())
        return
    columns = ("after", "with memory", "95 % interval", "suppressed", "95 % interval", "suppressed − with", "95 % interval")
    rows = [
        (
            state.state,
            f"{state.nats:.3f}",
            interval(state.ci95, ".3f"),
            f"{state.suppressed_nats:.3f}",
            interval(state.suppressed_ci95, ".3f"),
            f"{state.difference_nats:+.3f}",
            interval(state.difference_ci95, "+.3f"),
        )
        for state in view.states
    ]
    print_table(f"KL(final ‖ block), nats per token; {of_text(view.tokens, view.documents, corpus)}", columns, rows)
    note("each against its own end: a prediction that is surer is farther from the embedding")
    if plot:
        note(f"drawn: {plot}")
