"""`engram inspect ngram`: what a phrase reads."""

from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Json, RunDir, checked_text

if TYPE_CHECKING:
    from runtime.inspect.ngram import NgramView


def ngram(
    text: Annotated[str, typer.Argument(help="A phrase; its last tokens are the n-grams shown.")],
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Show the n-grams that end a phrase: their rows per head, the rows' norms, and how often the training side has them.

    The training side is what the model learns from: the corpus without what is kept for validation (corpus_count in JSON).
    Where it usually has other tokens than the phrase, a note says which: a longer last one, or those that follow a space.

    Example: engram inspect ngram "is not None"

    Example: engram inspect ngram "self." --json
    """
    from engram_cli.output import print_json
    from runtime.inspect.ngram import view_ngram
    from runtime.run import Run

    view = view_ngram(Run(run), checked_text(text))
    if json:
        print_json(view.to_json())
    else:
        _print(view)


def _print(view: "NgramView") -> None:
    from engram_cli.output import note, print_table

    tokens = zip(view.texts, view.keys, view.token_ids, view.canonical_ids, strict=True)
    print_table(
        "Tokens", ("token", "canonical key", "token id", "canonical id"), ((repr(a), repr(b), c, d) for a, b, c, d in tokens), 2
    )
    print_table(
        "N-grams",
        ("order", "n-gram", "in the training side"),
        ((n, " · ".join(map(repr, keys)), "unknown" if count is None else count) for n, (keys, count) in view.ngrams.items()),
        left=2,
    )
    for layer, orders in view.layers.items():
        rows = [
            (f"{n}-gram, head {head}", row, f"{norm:.4f}")
            for n, reads in orders.items()
            for head, (row, norm) in enumerate(reads)
        ]
        print_table(f"Layer {layer}", ("column", "row", "norm"), rows)
    if longer := view.written_otherwise:
        last, own = view.texts[-1], max(order for order in view.ngrams if order <= len(view.texts))
        counted = f"{longer.token!r} there {longer.count:,} times, {last!r} {view.ngrams[own][1]:,} times"
        note(f"note: {last!r} is usually written otherwise: the training side has {counted}")
    if inside := view.after_a_space:
        shown = " · ".join(map(repr, inside.tokens))
        note(f"note: after a space the phrase is {shown}, {inside.count:,} times in the training side")
