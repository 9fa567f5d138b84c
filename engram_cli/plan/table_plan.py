"""`engram plan --spec`: what the tables of a spec will cost, whatever model reads them."""

from typing import TYPE_CHECKING, Any

from engram_cli.output import byte_text, print_json, print_table

if TYPE_CHECKING:
    from engram_cli.table_shape import TableShape


def plan_tables(spec: str, head_dim: int, encoding_name: str, tokens_per_sec: float, json: bool) -> None:
    """Prints it; `head_dim` 0 and no encoding stand for the spec's own. Raises UsageError for names that there are not."""
    from engram_cli.table_shape import table_shape
    from table.encodings.encoding import encoding

    shape = table_shape(spec, None, head_dim)
    kind = encoding(encoding_name or shape.encoding)
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
    title = f"{cost['spec']} as {cost['encoding']}, {cost['row_bytes']} bytes a row"
    shown = ((layer, table["rows"], table["parameters"], byte_text(table["bytes"])) for layer, table in cost["layers"].items())
    print_table(title, ("layer", "rows", "parameters", "size"), shown)
    total = f"{cost['parameters']:,} parameters in {byte_text(cost['table_bytes'])}"
    print(f"{total}; a token reads {cost['reads_per_token']} rows, {byte_text(cost['read_bytes_per_token'])}")
    rate = f"{cost['reads_per_sec']:,.0f} rows/s, {byte_text(cost['read_bytes_per_sec'])}/s"
    print(f"at {cost['tokens_per_sec']:,.0f} tokens/s: {rate}; each cold row costs the drive a page")
