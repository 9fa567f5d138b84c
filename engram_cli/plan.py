"""`engram plan`: what a configuration will cost, before anything is built."""

from math import isfinite
from typing import Annotated

import typer

from engram_cli.options import Json


def plan(
    spec: Annotated[str, typer.Option(help="A named spec, or the path of one in JSON.")] = "deepseek-v4.1",
    head_dim: Annotated[int, typer.Option(min=0, max=1 << 16, help="Columns of a row. Default: the named spec's.")] = 0,
    encoding: Annotated[str, typer.Option(help="How rows are stored. Default: as the spec is published.")] = "",
    tokens_per_sec: Annotated[float, typer.Option(min=0, max=1e15, help="Tokens read per second, for the bandwidth.")] = 1000,
    json: Json = False,
) -> None:
    """Show parameters, bytes and bandwidth of a configuration's tables.

    Example: engram plan --spec engram-27b

    Example: engram plan --spec deepseek-v4.1 --encoding int4 --tokens-per-sec 9000 --json
    """
    from engram_cli.output import byte_text, print_json, print_table
    from engram_cli.table.group import spec_with_shape
    from hashing.base.errors import UsageError
    from table.encodings.encoding import encoding as named_encoding

    if not isfinite(tokens_per_sec):
        raise UsageError(f"{tokens_per_sec} tokens per second are expected to be a finite number")
    rule, head_dim, native = spec_with_shape(spec, None, head_dim)
    kind = named_encoding(encoding or native)
    row_bytes = kind.row_bytes(head_dim)
    reads = len(rule.layers) * rule.columns
    rows = {layer: rule.rows(layer) for layer in rule.layers}
    content = {
        "spec": spec,
        "encoding": kind.name,
        "head_dim": head_dim,
        "row_bytes": row_bytes,
        "layers": {str(layer): {"rows": n, "parameters": n * head_dim, "bytes": n * row_bytes} for layer, n in rows.items()},
        "parameters": sum(rows.values()) * head_dim,
        "table_bytes": sum(rows.values()) * row_bytes,
        "reads_per_token": reads,
        "read_bytes_per_token": reads * row_bytes,
        "tokens_per_sec": tokens_per_sec,
        "reads_per_sec": reads * tokens_per_sec,
        "read_bytes_per_sec": reads * row_bytes * tokens_per_sec,
    }
    if json:
        print_json(content)
        return
    shown = ((layer, n, n * head_dim, byte_text(n * row_bytes)) for layer, n in rows.items())
    print_table(f"{spec} as {kind.name}, {row_bytes} bytes a row", ("layer", "rows", "parameters", "size"), shown)
    total = f"{sum(rows.values()) * head_dim:,} parameters in {byte_text(sum(rows.values()) * row_bytes)}"
    print(f"{total}; a token reads {reads} rows, {byte_text(reads * row_bytes)}")
    rate = f"{reads * tokens_per_sec:,.0f} rows/s, {byte_text(reads * row_bytes * tokens_per_sec)}/s"
    print(f"at {tokens_per_sec:,.0f} tokens/s: {rate}; each cold row costs the drive a page")
