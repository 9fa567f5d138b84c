"""`engram plan`: what a configuration will cost, before anything is built."""

from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import Json

if TYPE_CHECKING:
    from engram_cli.table_shape import TableShape


def plan(
    spec: Annotated[str, typer.Option(help="A named spec, or the path of one in JSON.")] = "deepseek-v4.1",
    head_dim: Annotated[int, typer.Option(min=0, max=1 << 16, help="Numbers of a row. Default: the named spec's.")] = 0,
    encoding: Annotated[str, typer.Option(help="How rows are stored. Default: as the spec is published.")] = "",
    tokens_per_sec: Annotated[float, typer.Option(min=0, max=1e15, help="Tokens read per second, for the bandwidth.")] = 1000,
    json: Json = False,
) -> None:
    """Show parameters, bytes and bandwidth of a configuration's tables.

    Example: engram plan --spec engram-27b

    Example: engram plan --spec deepseek-v4.1 --encoding int4 --tokens-per-sec 9000 --json
    """
    from engram_cli.output import print_json
    from engram_cli.table_shape import table_shape
    from hashing.base.errors import UsageError
    from table.encodings.encoding import encoding as named_encoding

    if not isfinite(tokens_per_sec):
        raise UsageError(f"--tokens-per-sec is {tokens_per_sec}, expected a finite number", hint="as in --tokens-per-sec 9000")
    shape = table_shape(spec, None, head_dim)
    kind = named_encoding(encoding or shape.encoding)
    content = {"spec": spec, "encoding": kind.name, **_cost(shape, kind.row_bytes(shape.head_dim), tokens_per_sec)}
    if json:
        print_json(content)
    else:
        _print(content)


def _cost(shape: "TableShape", row_bytes: int, tokens_per_sec: float) -> dict[str, Any]:
    rows = {layer: shape.spec.rows(layer) for layer in shape.spec.layers}
    reads = len(rows) * shape.spec.columns
    return {
        "head_dim": shape.head_dim,
        "row_bytes": row_bytes,
        "layers": {
            str(layer): {"rows": n, "parameters": n * shape.head_dim, "bytes": n * row_bytes} for layer, n in rows.items()
        },
        "parameters": sum(rows.values()) * shape.head_dim,
        "table_bytes": sum(rows.values()) * row_bytes,
        "reads_per_token": reads,
        "read_bytes_per_token": reads * row_bytes,
        "tokens_per_sec": tokens_per_sec,
        "reads_per_sec": reads * tokens_per_sec,
        "read_bytes_per_sec": reads * row_bytes * tokens_per_sec,
    }


def _print(cost: dict[str, Any]) -> None:
    from engram_cli.output import byte_text, print_table

    title = f"{cost['spec']} as {cost['encoding']}, {cost['row_bytes']} bytes a row"
    shown = ((layer, table["rows"], table["parameters"], byte_text(table["bytes"])) for layer, table in cost["layers"].items())
    print_table(title, ("layer", "rows", "parameters", "size"), shown)
    total = f"{cost['parameters']:,} parameters in {byte_text(cost['table_bytes'])}"
    print(f"{total}; a token reads {cost['reads_per_token']} rows, {byte_text(cost['read_bytes_per_token'])}")
    rate = f"{cost['reads_per_sec']:,.0f} rows/s, {byte_text(cost['read_bytes_per_sec'])}/s"
    print(f"at {cost['tokens_per_sec']:,.0f} tokens/s: {rate}; each cold row costs the drive a page")
