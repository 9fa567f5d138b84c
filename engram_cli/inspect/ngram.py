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
    """Show the n-grams that end a phrase: their rows per head, the rows' norms, and how often the corpus has them.

    Example: engram inspect ngram "def __init__"

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
    from engram_cli.output import print_table

    tokens = zip(view.texts, view.keys, view.token_ids, view.canonical_ids, strict=True)
    print_table(
        "Tokens", ("token", "canonical key", "token id", "canonical id"), ((repr(a), repr(b), c, d) for a, b, c, d in tokens), 2
    )
    print_table(
        "N-grams",
        ("order", "n-gram", "in the corpus"),
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
