"""`engram inspect row`: whose a row is, how large, and what is like it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.inspect.options import CountsOption, Full, NoLens, StoreOption, TokenizerOption
from engram_cli.options import DEFAULT_RUN, Json, RunDir

if TYPE_CHECKING:
    from runtime.inspect.row import RowView

SHOWN_NGRAMS = 20
SHOWN_CONTEXTS = 10
SHOWN_TOKENS = 12  # of a context, on either side of the one that reads the row


def row(
    layer: Annotated[int, typer.Argument(help="The block whose table it is in.")],
    row: Annotated[int, typer.Argument(help="Its number in the layer's table, as inspect ngram shows it.")],
    full: Full = False,
    no_lens: NoLens = False,
    store: StoreOption = None,
    tokenizer: TokenizerOption = None,
    counts: CountsOption = None,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Show a row: its head, every known n-gram that reads it, its norm, its lens, the rows nearest to it, its contexts.

    Norm and nearness are among the rows of the same head: all of them, or a stated sample of a large head.

    Example: engram inspect row 1 44582

    Example: engram inspect row 1 44582 --store v41.zarr --tokenizer tokenizer.json --counts ngrams.parquet --full
    """
    from engram_cli.inspect.options import note_missing, opened
    from engram_cli.output import byte_progress, print_json
    from runtime.inspect.row import compared_bytes, view_row

    subject, model = opened(run, store, tokenizer, counts, not no_lens)
    with byte_progress("compare", compared_bytes(subject, layer, row, full)) as advance:
        view = view_row(subject, layer, row, full, advance)
    if model:
        from runtime.inspect.row_model import with_model

        view = with_model([view], *model)[0]
    note_missing(subject)
    if json:
        print_json(view.to_json())
    else:
        _print(view)


def _print(view: "RowView") -> None:
    from engram_cli.output import print_table

    column, rows = view.column, view.compared.rows
    among = "all rows of its head" if view.compared.is_whole else f"a sample of {rows:,} rows of its head"
    larger = "" if view.norm_percentile is None else f", larger than {view.norm_percentile:.2f} % of {among}"
    facts = [
        ("row", f"{view.row:,} of layer {view.layer}"),
        ("head", f"{column.order}-gram, head {column.head}; there row {view.head_row:,} of {column.rows:,}"),
        ("norm", f"{view.norm:.4f}{larger}"),
        ("read in training", "unknown" if view.training_reads is None else f"by {view.training_reads:,} steps"),
    ]
    print_table("Row", ("", ""), facts, left=2)
    if view.ngrams is not None:
        _print_ngrams(view.ngrams)
    if view.neighbours:
        found = ((_named(near.ngram), near.row, f"{near.cosine:.4f}") for near in view.neighbours)
        print_table(f"Nearest by cosine, among {among}", ("its most frequent reader", "row", "cosine"), found)
    if view.lens:
        from engram_cli.inspect.lens_table import print_lenses

        print_lenses("What its vector pushes (logits)", {"the row alone": view.lens})
    if view.contexts:
        _print_contexts(view.contexts)


def _named(ngram: list[str] | None) -> str | None:
    from engram_cli.inspect.ngram import shown

    return None if ngram is None else shown(ngram)


def _print_ngrams(ngrams: tuple[dict[str, Any], ...]) -> None:
    from engram_cli.output import print_table

    if not ngrams:
        print("no n-gram of the corpus reads it")
        return
    total = sum(found["count"] for found in ngrams)
    rows = ((_named(found["ngram"]), found["count"], f"{100 * found['count'] / total:.1f}") for found in ngrams[:SHOWN_NGRAMS])
    print_table(f"Read by {len(ngrams):,} known n-grams, {total:,} times", ("n-gram", "in the corpus", "share %"), rows)
    if (more := len(ngrams) - SHOWN_NGRAMS) > 0:
        print(f"and {more:,} more; --json has them all")


def _print_contexts(contexts: Any) -> None:
    """The widest gates; the token that reads the row stands in double brackets."""
    from engram_cli.output import print_table

    rows = ((f"{context.gates[context.position]:.3f}", _around(context)) for context in contexts.strongest[:SHOWN_CONTEXTS])
    read = f"{contexts.occurrences:,} times read in the training side, {contexts.sampled:,} of them looked at"
    print_table(f"Where the gate opens widest ({read})", ("gate", "context"), rows, left=2)


def _around(context: Any) -> str:
    first = max(0, context.position - SHOWN_TOKENS)
    before, after = context.tokens[first : context.position], context.tokens[context.position + 1 :][:SHOWN_TOKENS]
    text = "".join(before) + f"⟦{context.tokens[context.position]}⟧" + "".join(after)
    return repr(text)[1:-1]
