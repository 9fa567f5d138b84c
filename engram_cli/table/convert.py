"""`engram table convert`: a store's rows in another encoding, and what that costs."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir
from engram_cli.table.options import EncodingName, StorePath, store_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.run import Run
    from runtime.validation import Validation
    from table.convert import LayerError
    from table.store.store import TableStore


def convert(
    encoding: EncodingName,
    out: Annotated[Path, typer.Option("--out", help="Where the converted store is written.")],
    path: StorePath = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a store's rows in another encoding, and measure how far they are from what they were.

    Where the run's model was trained with them, also what the model then loses on its validation text.

    Example: engram table convert --encoding int8 --out int8.zarr

    Example: engram table convert v41.zarr --encoding int4 --out v41-int4.zarr --json
    """
    from engram_cli.interrupt import complete, resumable
    from engram_cli.output import byte_progress, print_json
    from hashing.base.atomic import refuse_overwrite
    from runtime.run import Run
    from table.convert import convert as write
    from table.convert import measure
    from table.encodings.encoding import encoding as named_encoding
    from table.store.store import TableStore

    source = TableStore.open(store_path(path, Run(run)))
    refuse_overwrite(out, force)
    target = named_encoding(encoding)
    with resumable(out), byte_progress("convert", source.total_rows * target.row_bytes(source.head_dim)) as advance:
        store = write(source, out, target, advance)
    with complete(out):
        with byte_progress("measure", source.total_bytes) as advance:
            errors = measure(source, store, lambda rows: advance(rows * source.row_bytes))
        validations = _validations(Run(run), [source, store])
    if json:
        print_json(_as_json(source, store, errors, validations))
    else:
        _print(source, store, errors, validations)


def _validations(run: "Run", stores: list["TableStore"]) -> list["Validation"]:
    """The model's losses with each of the stores; none without a model, and then torch is not imported."""
    if not run.model_path.exists():
        return []
    from runtime.validation import validate_stores

    return validate_stores(run, stores)


def _as_json(
    source: "TableStore", store: "TableStore", errors: "Sequence[LayerError]", validations: "Sequence[Validation]"
) -> dict[str, Any]:
    return {
        "path": str(store.path),
        "encoding": store.encoding.name,
        "row_bytes": store.row_bytes,
        "source_encoding": source.encoding.name,
        "source_row_bytes": source.row_bytes,
        "layers": {str(error.layer): _error(error) for error in errors},
        "validation": dict(zip(("before", "after"), map(asdict, validations), strict=True)) if validations else None,
    }


def _error(error: "LayerError") -> dict[str, Any]:
    return {
        "relative_rms_error": error.relative_rms_error,
        "snr_db": error.snr_db,
        "cosine": error.cosine,
        "saturated_codes": error.saturated,
        "rows_skipped": error.rows_skipped,
        "worst_rows": [{"row": row, "relative_error": relative} for relative, row in error.worst],
    }


def _print(
    source: "TableStore", store: "TableStore", errors: "Sequence[LayerError]", validations: "Sequence[Validation]"
) -> None:
    from engram_cli.output import print_table

    print(f"{store.path}: {source.encoding.name} to {store.encoding.name}, {source.row_bytes} to {store.row_bytes} bytes a row")
    columns = ("layer", "RMS error", "SNR dB", "cosine", "saturated", "NaN rows", "worst row")
    print_table("Error", columns, (_error_cells(error) for error in errors))
    if validations:
        before, after = validations
        change = after.nats_per_token - before.nats_per_token
        loss = f"{before.nats_per_token:.4f} to {after.nats_per_token:.4f} nats per token ({change:+.4f})"
        print(f"The model's validation loss: {loss}, {before.bits_per_byte:.4f} to {after.bits_per_byte:.4f} bits per byte")


def _error_cells(error: "LayerError") -> tuple[object, ...]:
    exact = "no loss" if error.snr_db is None else f"{error.snr_db:.1f}"
    worst = next((f"{row:,} ({relative:.2%})" for relative, row in error.worst), "none")
    rms, cosine = f"{error.relative_rms_error:.3%}", f"{error.cosine:.6f}"
    return error.layer, rms, exact, cosine, error.saturated, error.rows_skipped, worst
