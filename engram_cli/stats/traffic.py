"""`engram stats traffic`: what reading a corpus asks of a cache of rows."""

from typing import Annotated

import typer

from engram_cli.counting import CorpusArguments, Counting, IdsColumn, PlotFile
from engram_cli.options import DEFAULT_RUN, Encoding, Json, RunDir, SpecName, TextColumn, TextKey, row_bytes_of, spec_for_run

SHOWN = {
    "layer": "layer",
    "orders": "n-grams",
    "reads": "reads",
    "distinct_rows": "distinct rows",
    "lru_hit_percent": "LRU hits %",
    "lru_error_percent": "± %",
    "static_hit_percent": "static hits %",
}


def traffic(
    corpus: CorpusArguments = None,
    spec_name: SpecName = "",
    cache: Annotated[str, typer.Option(help="A cache's size, to say what it would hit.")] = "1GiB",
    row_bytes: Annotated[int | None, typer.Option(min=1, help="Bytes of a row. Default: as the spec's tables have.")] = None,
    tokens: Annotated[int, typer.Option(min=1000, help="How many tokens to follow.")] = 500_000,
    plot: PlotFile = None,
    ids_column: IdsColumn = "",
    text_key: TextKey = "",
    text_column: TextColumn = "",
    encoding: Encoding = "",
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Say what reading a corpus asks of a cache of rows.

    Example: engram stats traffic

    Example: engram stats traffic data/ --spec engram-demo --cache 64MiB --plot traffic.png
    """
    from engram_cli.output import print_json, print_table
    from hashing.base.byte_size import parse_bytes
    from hashing.ngrams.traffic import BATCHES, row_streams
    from hashing.ngrams.traffic import traffic as figures
    from runtime.run import Run

    if plot:
        from engram_cli.pictures import check_format

        check_format(plot)
    source = Run(run)
    vocab = source.vocab()
    spec = spec_for_run(spec_name, source, vocab)
    row_bytes = row_bytes or row_bytes_of(spec_name, source)
    cache_rows = parse_bytes(cache) // row_bytes
    with Counting(source, corpus or [], ids_column, text_key, text_column, encoding).pieces() as pieces:
        found = [figures(stream, cache_rows) for stream in row_streams(spec, vocab, pieces, tokens)]
    if plot:
        from engram_cli.stats.plots import plot_misses

        drawn = [(f"{f.orders}, layer {f.layer}", f.curve) for f in found if f.layer == spec.layers[0]]
        plot_misses(plot, drawn, row_bytes)
    if json:
        streams = [{key: getattr(f, key) for key in (*SHOWN, "exact", "distinct_rows_per_batch")} for f in found]
        print_json({"cache_bytes": cache_rows * row_bytes, "row_bytes": row_bytes, "streams": streams})
        return
    columns = (*SHOWN.values(), *(f"rows/{batch:,}" for batch in BATCHES))
    rows = ([*(getattr(f, key) for key in SHOWN), *f.distinct_rows_per_batch.values()] for f in found)
    title = f"A cache of {cache_rows:,} rows of {row_bytes} bytes ({cache}); distinct rows in a batch of so many tokens"
    print_table(title, columns, rows, left=2)
