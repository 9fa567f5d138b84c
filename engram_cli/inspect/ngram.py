"""`engram inspect ngram`: what a phrase reads, and who else reads it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.inspect.options import CountsOption, NoLens, StoreOption, TokenizerOption
from engram_cli.options import DEFAULT_RUN, Json, RunDir, checked_text

if TYPE_CHECKING:
    from runtime.inspect.ngram import Head, NgramView


def ngram(
    text: Annotated[str, typer.Argument(help="A phrase; its last tokens are the n-grams shown.")],
    every_token: Annotated[bool, typer.Option("--all", help="Show the n-grams that end at every token of the phrase.")] = False,
    no_lens: NoLens = False,
    store: StoreOption = None,
    tokenizer: TokenizerOption = None,
    counts: CountsOption = None,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Show the n-grams that end a phrase: rows, norms, what else reads the rows, what they say, how far the gate opens.

    The corpus is what engram stats has counted; the training side is what the model learns from, the corpus without what is
    kept for validation. Where that usually has other tokens than the phrase, a note says which.

    Example: engram inspect ngram "is not None"

    Example: engram inspect ngram "Alexander the Great" --store v41.zarr --tokenizer tokenizer.json --counts ngrams.parquet
    """
    from engram_cli.inspect.options import note_missing, opened
    from engram_cli.output import print_json
    from runtime.inspect.ngram import view_ngram

    phrase = checked_text(text)
    subject, model = opened(run, store, tokenizer, counts, not no_lens)
    view = view_ngram(subject, phrase, every_token)
    if model:
        from runtime.inspect.ngram_model import with_model

        view = with_model(view, *model)
    note_missing(subject)
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
    views = view.positions or (view,)
    _print_ngrams(views)
    if view.positions:
        _print_positions(view.positions)
    else:
        for layer in view.layers:
            _print_rows(view, layer)
        _print_agreement(view)
    _print_gates(views)
    _print_lenses(view)
    _note_writing(view)


def shown(keys: Sequence[str]) -> str:
    """An n-gram as people read it."""
    return " · ".join(map(repr, keys))


def _print_ngrams(views: "Sequence[NgramView]") -> None:
    """Layers differ in rows, not in n-grams: those of the first are those of all."""
    from engram_cli.output import print_table

    found = [(n, order) for view in views for n, order in next(iter(view.layers.values())).orders.items()]
    print_table(
        "N-grams",
        ("order", "n-gram", "in the corpus", "in the training side"),
        ((n, shown(order.ngram), _known(order.corpus_count), _known(order.training_count)) for n, order in found),
        left=2,
    )


def _known(value: int | None) -> object:
    return "unknown" if value is None else value


def _print_rows(view: "NgramView", layer: int) -> None:
    from engram_cli.output import print_table

    rows = [
        (f"{n}-gram, head {place}", *_head(head))
        for n, order in view.layers[layer].orders.items()
        for place, head in enumerate(order.heads)
    ]
    columns = ("column", "busiest other reader", "row", "norm", "read by steps", "others", "own %")
    print_table(f"Layer {layer}: rows, and who else in the corpus reads them", columns, rows, left=2)


def _head(head: "Head") -> tuple[object, ...]:
    sharers = head.sharers
    first: dict[str, Any] | None = sharers.heaviest[0] if sharers and sharers.heaviest else None
    other = f"{shown(first['ngram'])} ({first['count']:,})" if first else None
    share = None if sharers is None or sharers.share_percent is None else f"{sharers.share_percent:.1f}"
    return other, head.row, f"{head.norm:.4f}", head.reads, sharers and sharers.others, share


def _print_agreement(view: "NgramView") -> None:
    """How far the heads stand for the phrase: whose row each is, by the reads in the corpus."""
    from engram_cli.output import print_table

    rows = [
        (f"layer {layer}, {n}-gram", f"{a.heaviest_in} of {a.heads}", f"{a.alone_in} of {a.heads}", *_shares(a))
        for layer, found in view.layers.items()
        for n, order in found.orders.items()
        if (a := order.agreement)
    ]
    columns = ("heads whose row is", "this n-gram's mostly", "this n-gram's alone", "mean share %", "least share %")
    if rows:
        print_table("Agreement of heads", columns, rows)


def _shares(agreement: Any) -> tuple[str, str]:
    return f"{agreement.mean_share_percent:.1f}", f"{agreement.least_share_percent:.1f}"


def _print_positions(views: "Sequence[NgramView]") -> None:
    """Every token in one line for each layer and order; `--json` has all the rest."""
    from engram_cli.output import print_table

    def rows(layer: int) -> Iterator[tuple[object, ...]]:
        for view in views:
            for n, order in view.layers[layer].orders.items():
                a, norms = order.agreement, [head.norm for head in order.heads]
                yield (
                    repr(view.texts[-1]),
                    shown(order.ngram),
                    n,
                    f"{sum(norms) / len(norms):.4f}",
                    f"{a.heaviest_in} of {a.heads}" if a else None,
                    f"{a.least_share_percent:.1f}" if a else None,
                )

    columns = ("token", "n-gram", "order", "mean norm", "mostly its rows", "least share %")
    for layer in views[0].layers:
        print_table(f"Layer {layer}", columns, rows(layer), left=2)


def _print_gates(views: "Sequence[NgramView]") -> None:
    from engram_cli.output import print_table

    rows = [
        (f"layer {layer}, {n}-gram", shown(order.ngram), order.gates.occurrences, order.gates.sampled, *map(_gate, figures))
        for view in views
        for layer, found in view.layers.items()
        for n, order in found.orders.items()
        if order.gates
        for figures in [(order.gates.low, *order.gates.quartiles, order.gates.high)]
    ]
    columns = ("gate", "n-gram", "occurrences", "sampled", "least", "quarter", "median", "three quarters", "most")
    if rows:
        print_table("Gates where the training side has the n-gram", columns, rows, left=2)


def _gate(value: float) -> str:
    return f"{value:.3f}"


def _print_lenses(view: "NgramView") -> None:
    from engram_cli.inspect.lens_table import print_lenses

    for layer, found in view.layers.items():
        if found.lens:
            lenses = {f"{n}-gram": order.lens for n, order in found.orders.items() if order.lens}
            print_lenses(f"Layer {layer}, what its vectors push (logits)", {**lenses, "all together": found.lens})


def _note_writing(view: "NgramView") -> None:
    """Says where running text has other tokens than the phrase."""
    from engram_cli.output import note

    orders = next(iter(view.layers.values())).orders
    if longer := view.written_otherwise:
        last, own = view.texts[-1], max(order for order in orders if order <= len(view.texts))
        counted = f"{longer.token!r} there {longer.count:,} times, {last!r} {orders[own].training_count:,} times"
        note(f"note: {last!r} is usually written otherwise: the training side has {counted}")
    if inside := view.after_a_space:
        note(f"note: after a space the phrase is {shown(inside.tokens)}, {inside.count:,} times in the training side")
