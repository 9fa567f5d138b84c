"""`engram table info`: layers, rows, bytes, encoding, fingerprints and origin of a store."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import DEFAULT_RUN, Json, RunDir
from engram_cli.table.options import StorePath

if TYPE_CHECKING:
    from table.store.store import TableStore


def info(
    path: StorePath = None,
    resident: Annotated[bool, typer.Option("--resident", help="Also say how much of the tables is in memory now.")] = False,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Show layers, rows, bytes, encoding, fingerprints and origin of a store.

    Example: engram table info

    Example: engram table info v41.zarr --resident --json
    """
    from runtime.run import Run
    from table.store.store import TableStore

    if path is None:
        path = Run(run).tables_path
        Run(run).require(path, "train")
    print_store(TableStore.open(path), json, resident)


def print_store(store: "TableStore", json: bool, resident: bool = False) -> None:
    """Prints a store's facts, as tables or as one JSON document; `resident` adds the bytes that are in memory."""
    from engram_cli.output import byte_text, print_json, print_table

    facts = _facts(store)
    if resident:
        facts["resident_bytes"] = sum(store.table(layer).resident_bytes() for layer in store.spec.layers)
    if json:
        print_json(facts)
        return
    size = f"{byte_text(facts['disk_bytes'])} on disk, {byte_text(facts['apparent_bytes'])} apparent"
    print(f"{store.path}: {facts['encoding']}, {facts['row_bytes']} bytes a row, {size}")
    if resident:
        print(f"{byte_text(facts['resident_bytes'])} in memory")
    vocab = facts["vocab_fingerprint"] or "not known"
    print(f"spec {facts['spec_fingerprint']}, vocabulary {vocab} ({facts['canonical_ids']:,} canonical ids)")
    print(f"origin: {facts['origin']['kind']} {facts['origin']['name']}" if facts["origin"] else "origin: made here")
    columns = ("layer", "orders", "heads", "head dim", "rows", "shards there", "shards")
    shown = (
        (layer, facts["orders"], facts["heads"], facts["head_dim"], v["rows"], v["shards_present"], v["shards"])
        for layer, v in facts["layers"].items()
    )
    print_table("Layers", columns, shown, left=2)


def _facts(store: "TableStore") -> dict[str, Any]:
    spec, origin = store.spec, store.manifest.origin
    return {
        "path": str(store.path),
        "encoding": store.encoding.name,
        "head_dim": store.head_dim,
        "row_bytes": store.row_bytes,
        "rows": store.total_rows,
        "apparent_bytes": store.total_bytes,
        "disk_bytes": sum(file.stat().st_blocks * 512 for file in store.path.rglob("*") if file.is_file()),
        "orders": f"{spec.orders[0]} to {spec.orders[-1]}",
        "heads": spec.heads,
        "canonical_ids": spec.canonical_size,
        "spec_fingerprint": spec.fingerprint,
        "vocab_fingerprint": store.vocab_fingerprint,
        "step": store.step,
        "origin": {"kind": origin.kind, "name": origin.name, "files": [f.name for f in origin.files]} if origin else None,
        "layers": {str(layer): _layer_facts(store, layer) for layer in store.manifest.layers},
    }


def _layer_facts(store: "TableStore", layer: int) -> dict[str, Any]:
    manifest = store.manifest
    return {
        "rows": store.spec.rows(layer),
        "scale": manifest.layers[layer].scale,
        "shards": manifest.shard_count(layer),
        "shards_present": len(manifest.layers[layer].shards),
        "shard_bytes": manifest.shard_bytes(layer),
    }
