"""`engram inspect table`: the health of tables."""

from typing import TYPE_CHECKING, Any

from engram_cli.inspect.options import CountsOption, Full, StoreOption, TokenizerOption
from engram_cli.options import DEFAULT_RUN, Json, RunDir

if TYPE_CHECKING:
    from runtime.inspect.table import LayerHealth, TableView

BARS = " ▁▂▃▄▅▆▇█"


def table(
    full: Full = False,
    store: StoreOption = None,
    tokenizer: TokenizerOption = None,
    counts: CountsOption = None,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Show the health of tables: norms, unread rows, NaN, exploding rows, scales, occupancy, effective rank, heaviest rows.

    Small heads are looked at whole, large ones by a stated sample, or whole with --full, in bounded memory.

    Example: engram inspect table

    Example: engram inspect table --store v41.zarr --tokenizer tokenizer.json --counts ngrams.parquet --json
    """
    from engram_cli.inspect.options import note_missing, opened
    from engram_cli.output import byte_progress, print_json
    from runtime.inspect.table import sampled_bytes, view_table

    subject, _ = opened(run, store, tokenizer, counts, lens=False)
    with byte_progress("look", sampled_bytes(subject, full)) as advance:
        view = view_table(subject, full, advance)
    note_missing(subject)
    if json:
        print_json(view.to_json())
    else:
        _print(view)


def _print(view: "TableView") -> None:
    from engram_cli.output import print_table

    print(f"{view.path}: {view.encoding}, {view.head_dim} numbers a row")
    for health in view.layers:
        print_table(f"Layer {health.layer}", ("", ""), _facts(health), left=2)
        for row, fault in health.faults:
            print(f"layer {health.layer}: row {row:,} {fault}")
        _print_norms(health)
        _print_heads(health)
        if health.heaviest:
            _print_heaviest(health)


def _facts(health: "LayerHealth") -> list[tuple[str, str]]:
    sampled, (exploded, named) = health.sampled_rows, health.norms.exploded()
    largest = "".join(f"; row {row:,} has {norm:.4g}" for norm, row in named[:1])
    looked = "all" if sampled >= sum(head.column.rows for head in health.heads) else f"a sample of {sampled:,}"
    unread = "unknown" if health.never_read_rows is None else _of(health.never_read_rows, health.rows)
    made = health.as_made_rows
    return [
        ("rows", f"{health.rows:,}, looked at: {looked}"),
        ("never read in training", unread),
        ("still as they were made", _of(made, health.rows if health.never_read_rows is not None else sampled)),
        ("rows of zeros", _of(health.zero_rows, sampled)),
        ("norms above 10 times the median", f"{_of(exploded, sampled)}{largest}"),
        ("NaN, infinite, odd scales", "none" if not health.faults else f"{len(health.faults)} kinds, listed below"),
    ]


def _print_norms(health: "LayerHealth") -> None:
    from engram_cli.output import print_table

    if percentiles := health.norms.percentiles():
        columns = [f"{percent} %" for percent in percentiles]
        title = f"Layer {health.layer}, norms of rows that are not zeros"
        print_table(title, ("percentile", *columns), [("norm", *(f"{norm:.4g}" for norm in percentiles.values()))])
        print(f"from 0 to the largest, rows in 50 bins: {_drawn(health.norms.histogram()['counts'])}")


def _of(count: int, rows: int) -> str:
    return f"{count:,} ({100 * count / rows:.2f} %)"


def _drawn(counts: list[int]) -> str:
    """A histogram as one line; a bin that holds anything is never empty."""
    largest = max([1, *counts])
    return "".join(BARS[-(-count * (len(BARS) - 1) // largest)] for count in counts)


def _print_heads(health: "LayerHealth") -> None:
    from engram_cli.output import print_table

    rows: list[tuple[Any, ...]] = [
        (
            f"{head.column.order}-gram, head {head.column.head}",
            head.column.rows,
            head.sampled_rows,
            _percent(head.zero_rows, head.sampled_rows),
            _percent(head.occupied_rows, head.column.rows),
            _percent(head.occupied_expected, head.column.rows),
            None if head.rank_entropy is None else f"{head.rank_entropy:.1f}",
            None if head.rank_participation is None else f"{head.rank_participation:.1f}",
        )
        for head in health.heads
    ]
    columns = ("head", "rows", "looked at", "zeros %", "occupied %", "by chance %", "effective rank", "participation")
    print_table(f"Layer {health.layer}, heads", columns, rows)


def _percent(count: float | None, of: int) -> str | None:
    return None if count is None else f"{100 * count / of:.2f}"


def _print_heaviest(health: "LayerHealth") -> None:
    from engram_cli.inspect.ngram import shown
    from engram_cli.output import print_table

    rows = (
        (f"{heavy.order}-gram, head {heavy.head}", shown(heavy.ngram), heavy.row, f"{heavy.traffic_percent:.3f}", heavy.ngrams)
        for heavy in health.heaviest or ()
    )
    columns = ("head", "its most frequent reader", "row", "of its head's reads %", "readers")
    print_table(f"Layer {health.layer}, heaviest rows", columns, rows, left=2)
