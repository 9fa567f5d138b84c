"""`engram plan serve`: how much memory rows on disk need, from text like that which will be served."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.counting import CorpusArguments, Counting, IdsColumn
from engram_cli.options import DEFAULT_RUN, Encoding, Json, RunDir, SpecName, TextColumn, TextKey, row_bytes_of, spec_for_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hashing.ngrams.traffic import MissCurve

PAGE_BYTES = 4096
MEMORY = ["64MiB", "256MiB", "1GiB", "4GiB", "16GiB"]


def plan_serve(
    corpus: CorpusArguments = None,
    spec_name: SpecName = "",
    cache: Annotated[
        list[str], typer.Option(help="Memory for rows, to say what it would miss; may be given many times.")
    ] = MEMORY,
    row_bytes: Annotated[int | None, typer.Option(min=1, help="Bytes of a row. Default: as the spec's tables have.")] = None,
    tokens: Annotated[int, typer.Option(min=1000, help="How many tokens to follow.")] = 500_000,
    drive: Annotated[Path, typer.Option(help="A folder on the drive, which is measured with a file of its own.")] = Path(
        "build"
    ),
    reads_per_sec: Annotated[
        float, typer.Option(min=0, help="Pages that a drive reads a second, in place of measuring one.")
    ] = 0,
    ids_column: IdsColumn = "",
    text_key: TextKey = "",
    text_column: TextColumn = "",
    encoding: Encoding = "",
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Say how often rows on disk would be missed with so much memory, and how fast a drive lets tokens be then.

    Rows are followed through text like that which will be served, and held as least recently used; `engram serve` keeps them
    better. A row that is read for the first time is missed with any memory, so a short text says more misses than a long one.

    Example: engram plan serve prompts.jsonl --spec deepseek-v4.1 --cache 1GiB --cache 8GiB

    Example: engram plan serve --reads-per-sec 500000 --json
    """
    from engram_cli.output import print_json
    from engram_cli.plan.drive_speed import pages_per_sec
    from hashing.base.byte_size import parse_bytes
    from hashing.ngrams.traffic import miss_curve, row_streams
    from runtime.run import Run

    source = Run(run)
    vocab = source.vocab()
    spec = spec_for_run(spec_name, source, vocab)
    width = row_bytes or row_bytes_of(spec_name, source)
    sizes = [parse_bytes(text) for text in cache]
    with Counting(source, corpus or [], ids_column, text_key, text_column, encoding).pieces() as pieces:
        streams = [stream.rows for stream in row_streams(spec, vocab, pieces, tokens) if stream.orders == "all"]
    curves = [miss_curve(rows.reshape(-1)) for rows in streams]
    pages, reads = reads_per_sec or pages_per_sec(drive), len(spec.layers) * spec.columns
    budgets = [_budget(size, _missed(curves, size // width, spec.columns), reads, pages) for size in sizes]
    if json:
        content = {"row_bytes": width, "reads_per_token": reads, "tokens": len(streams[0]), "drive_pages_per_sec": pages}
        print_json({**content, "budgets": budgets})
        return
    _print(budgets, f"{reads} rows of {width} bytes a token; a drive of {pages:,.0f} pages a second")


def _budget(size: int, missed: float, reads: int, pages: float) -> dict[str, Any]:
    """What follows from so many rows missed a token, of so many `reads`, with a drive of so many `pages` a second."""
    return {
        "cache_bytes": size,
        "misses_per_token": missed,
        "miss_percent": 100 * missed / reads,
        "drive_bytes_per_token": missed * PAGE_BYTES,
        "tokens_per_sec": pages / missed if missed else None,
    }


def _print(budgets: "Sequence[dict[str, Any]]", title: str) -> None:
    from engram_cli.output import byte_text, print_table

    columns = ("memory for rows", "missed a token", "missed %", "read a token", "tokens/s at most")
    lines = (
        (
            byte_text(each["cache_bytes"]),
            each["misses_per_token"],
            each["miss_percent"],
            byte_text(each["drive_bytes_per_token"]),
            each["tokens_per_sec"],
        )
        for each in budgets
    )
    print_table(title, columns, lines)


def _missed(curves: "Sequence[MissCurve]", rows: int, columns: int) -> float:
    """Rows a token, of all layers, where each has its share of so many rows."""
    return sum(columns * curve.at(rows // len(curves))[0] for curve in curves)
