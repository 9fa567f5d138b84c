"""`engram table`: making, moving and checking tables."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.interrupt import complete, resumable
from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir

if TYPE_CHECKING:
    from hashing.spec import HashSpec
    from runtime.run import Run
    from runtime.validation import Validation
    from table.checkpoints.checkpoint import Checkpoint
    from table.convert import LayerError
    from table.store.store import TableStore

app = typer.Typer(help="Make, import, check, convert and export tables.", no_args_is_help=True)

StorePath = Annotated[Path | None, typer.Argument(help="The table store. Default: the run's.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where the store is written. Default: the run's tables.")]
EncodingName = Annotated[str, typer.Option("--encoding", help="How rows are stored: bfloat16, e4m3-e8m0, int8, int4 …")]
TokenizerPath = Annotated[Path | None, typer.Option(help="The tokenizer.json, if it does not lie in the checkpoint's folder.")]
SpecName = Annotated[str, typer.Option("--spec", help="A named hash spec, or the path of one in JSON.")]
VocabPath = Annotated[Path | None, typer.Option("--vocab", help="The vocab.parquet that rows are addressed with.")]

MIB = 1 << 20


@app.command("create")
def create(
    spec: SpecName,
    out: Out = None,
    vocab: VocabPath = None,
    encoding: EncodingName = "",
    head_dim: Annotated[int, typer.Option(min=0, max=1 << 16, help="Columns of a row. Default: the named spec's.")] = 0,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a store of zeros, of any size at once: shards that are absent are zeros.

    Example: engram table create --spec deepseek-v4.1 --out v41.zarr

    Example: engram table create --spec engram-demo --vocab runs/default/vocab.parquet --encoding int8 --out demo.zarr
    """
    import numpy as np

    from hashing.base.atomic import refuse_overwrite
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run
    from table.encodings.encoding import encoding as named_encoding
    from table.store.store import create_store

    place = out or Run(run).tables_path
    refuse_overwrite(place, force)
    words = CanonicalVocab.load(vocab) if vocab else None
    rule, columns, native = spec_with_shape(spec, words, head_dim)
    mapping = words.mapping if words else np.empty(0, np.int32)
    store = create_store(place, rule, mapping, named_encoding(encoding or native), columns)
    _print_info(store, json)


def spec_with_shape(name: str, vocab: Any, head_dim: int = 0) -> tuple["HashSpec", int, str]:
    """The spec, its columns per row and the encoding it is published in."""
    from hashing.base.errors import UsageError
    from hashing.named_specs import named_spec
    from hashing.spec import HashSpec

    if name.endswith(".json"):
        if not head_dim:
            raise UsageError("a spec in JSON does not say how wide a row is", hint="give --head-dim")
        return HashSpec.load(Path(name)), head_dim, "float32"
    chosen = named_spec(name)
    return chosen.spec(vocab) if vocab else chosen.bare_spec(), head_dim or chosen.head_dim, chosen.encoding


@app.command("info")
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

    _print_info(TableStore.open(path or Run(run).tables_path), json, resident)


def _print_info(store: "TableStore", json: bool, resident: bool = False) -> None:
    from engram_cli.output import byte_text, print_json, print_table

    content = _info(store)
    if resident:
        content["resident_bytes"] = sum(store.table(layer).resident_bytes() for layer in store.spec.layers)
    if json:
        print_json(content)
        return
    size = f"{byte_text(content['disk_bytes'])} on disk, {byte_text(content['apparent_bytes'])} apparent"
    print(f"{store.path}: {content['encoding']}, {content['row_bytes']} bytes a row, {size}")
    if resident:
        print(f"{byte_text(content['resident_bytes'])} in memory")
    vocab = content["vocab_fingerprint"] or "not known"
    print(f"spec {content['spec_fingerprint']}, vocabulary {vocab} ({content['canonical_ids']:,} canonical ids)")
    print(f"origin: {content['origin']['kind']} {content['origin']['name']}" if content["origin"] else "origin: made here")
    columns = ("layer", "orders", "heads", "head dim", "rows", "shards there", "shards")
    shown = (
        (layer, content["orders"], content["heads"], content["head_dim"], v["rows"], v["shards_present"], v["shards"])
        for layer, v in content["layers"].items()
    )
    print_table("Layers", columns, shown, left=2)


def _info(store: "TableStore") -> dict[str, Any]:
    manifest, spec = store.manifest, store.spec
    origin = manifest.origin
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
        "layers": {
            str(layer): {
                "rows": spec.rows(layer),
                "scale": cut.scale,
                "shards": manifest.shard_count(layer),
                "shards_present": len(cut.shards),
                "shard_bytes": manifest.shard_bytes(layer),
            }
            for layer, cut in manifest.layers.items()
        },
    }


@app.command("verify")
def verify(
    path: Annotated[Path | None, typer.Argument(help="A store, or a checkpoint's folder. Default: the run's tables.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Read every byte, not only what is small.")] = False,
    tokenizer: TokenizerPath = None,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Check a store or a checkpoint; exit 1 with the list of faults, if there are any.

    Example: engram table verify --full

    Example: engram table verify path/to/DeepSeek-V4.1-Flash
    """
    from engram_cli.output import note, print_json
    from runtime.run import Run
    from table.verify import verify as examine

    place = path or Run(run).tables_path
    with _bar("verify", _size(place)) as advance:
        result = examine(place, full, tokenizer, advance)
    if json:
        print_json({"path": str(place), "full": full, "faults": result.faults, "notes": result.notes})
    else:
        for fault in result.faults:
            print(fault)
        for remark in result.notes:
            note(remark)
        if not result.faults:
            print(f"{place}: no fault found" + ("" if full else "; --full reads every byte"))
    if result.faults:
        raise typer.Exit(1)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="The folder of a checkpoint, or the demo's state dict (safetensors or .pt).")],
    out: Out = None,
    layer: Annotated[list[int] | None, typer.Option(help="Only this layer; repeat for more.")] = None,
    encoding: EncodingName = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    spec: SpecName = "",
    vocab: VocabPath = None,
    tokenizer: TokenizerPath = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Import a published table in bounded memory; run again after an interruption, it goes on where it stopped.

    Example: engram table import path/to/DeepSeek-V4.1-Flash --out v41.zarr

    Example: engram table import demo.safetensors --spec engram-demo --vocab runs/default/vocab.parquet --dry-run
    """
    from engram_cli.output import byte_text, note, print_json
    from hashing.base.atomic import refuse_overwrite
    from hashing.base.errors import EngramError, UsageError
    from runtime.run import Run
    from table.checkpoints.checkpoint import choose_layers
    from table.checkpoints.family import read_checkpoint
    from table.checkpoints.importer import Import
    from table.encodings.encoding import encoding as named_encoding

    place = out or Run(run).tables_path
    refuse_overwrite(place, force or dry_run)
    if not source.exists():
        raise EngramError(f"no such file or folder: {source}")
    if source.is_dir() and (spec or vocab):
        raise UsageError("--spec and --vocab are for a state dict; a checkpoint's folder says itself how it is addressed")
    found = read_checkpoint(source, tokenizer) if source.is_dir() else _state_dict(source, spec, vocab, layer or [])
    checkpoint = choose_layers(found, layer or []).check()
    plan = Import(checkpoint, named_encoding(encoding) if encoding else checkpoint.encoding)
    if not dry_run:
        with resumable(place), _bar("import", plan.written_bytes) as advance:
            store = plan.run(place, advance)
    for remark in checkpoint.notes:
        note(remark)
    if not dry_run:
        _print_info(store, json)
        return
    content: dict[str, Any] = {
        "path": str(place),
        "kind": checkpoint.kind,
        "encoding": plan.encoding.name,
        "layers": {str(number): checkpoint.spec.rows(number) for number in checkpoint.spec.layers},
        "read_bytes": checkpoint.total_bytes,
        "written_bytes": plan.written_bytes,
    }
    if json:
        print_json(content)
        return
    read, written = byte_text(checkpoint.total_bytes), byte_text(plan.written_bytes)
    print(f"{place}: {plan.rows:,} rows of layers {', '.join(content['layers'])} as {plan.encoding.name}")
    print(f"{read} would be read, {written} ({plan.written_bytes:,} bytes) written")


def _state_dict(source: Path, spec: str, vocab_path: Path | None, layers: list[int]) -> "Checkpoint":
    import numpy as np

    from hashing.base.errors import UsageError
    from hashing.vocab import CanonicalVocab
    from table.checkpoints.checkpoint import spec_of_layers
    from table.checkpoints.demo import read_demo

    if not spec:
        raise UsageError("a state dict does not say how its rows are addressed", hint="give --spec NAME, or a spec's JSON file")
    vocab = CanonicalVocab.load(vocab_path) if vocab_path else None
    rule, _, _ = spec_with_shape(spec, vocab, 1)
    rule = spec_of_layers(rule, layers) if layers else rule
    mapping = vocab.mapping if vocab else np.empty(0, np.int32)
    if source.suffix == ".safetensors":
        return read_demo(source, rule, mapping)
    from runtime.state_dict import read_torch_demo

    return read_torch_demo(source, rule, mapping)


@app.command("export")
def export(
    path: StorePath = None,
    out: Annotated[Path, typer.Option("--out", help="The folder that the checkpoint's files are written to.")] = Path("export"),
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write an imported table back as the checkpoint files it came from.

    Example: engram table export v41.zarr --out restored

    Example: engram table export --out restored --force
    """
    from engram_cli.output import print_json
    from hashing.base.atomic import refuse_overwrite
    from runtime.run import Run
    from table.checkpoints.exporter import export as write
    from table.store.store import TableStore

    store = TableStore.open(path or Run(run).tables_path)
    refuse_overwrite(out, force)
    with _bar("export", store.total_bytes) as advance:
        write(store, out, advance)
    files = {file.name: file.stat().st_size for file in sorted(out.iterdir())}
    if json:
        print_json({"path": str(out), "files": [{"name": name, "size_bytes": size} for name, size in files.items()]})
        return
    for name, size in files.items():
        print(f"{out / name}: {size:,} bytes")


@app.command("convert")
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
    from engram_cli.output import print_json, print_table
    from hashing.base.atomic import refuse_overwrite
    from runtime.run import Run
    from table.convert import convert as write
    from table.convert import measure
    from table.encodings.encoding import encoding as named_encoding
    from table.store.store import TableStore

    source = TableStore.open(path or Run(run).tables_path)
    refuse_overwrite(out, force)
    target = named_encoding(encoding)
    with resumable(out), _bar("convert", source.total_rows * target.row_bytes(source.head_dim)) as advance:
        store = write(source, out, target, advance)
    with complete(out):
        with _bar("measure", source.total_bytes) as advance:
            errors = measure(source, store, lambda rows: advance(rows * source.row_bytes))
        validations = _validations(Run(run), [source, store])
    content = {
        "path": str(out),
        "encoding": store.encoding.name,
        "row_bytes": store.row_bytes,
        "source_encoding": source.encoding.name,
        "source_row_bytes": source.row_bytes,
        "layers": {str(error.layer): _error(error) for error in errors},
        "validation": dict(zip(("before", "after"), map(asdict, validations), strict=True)) if validations else None,
    }
    if json:
        print_json(content)
        return
    print(f"{out}: {source.encoding.name} to {store.encoding.name}, {source.row_bytes} to {store.row_bytes} bytes a row")
    columns = ("layer", "RMS error", "SNR dB", "cosine", "saturated", "NaN rows", "worst row")
    print_table("Error", columns, (_error_cells(error) for error in errors))
    if validations:
        before, after = validations
        change = after.nats_per_token - before.nats_per_token
        loss = f"{before.nats_per_token:.4f} to {after.nats_per_token:.4f} nats per token ({change:+.4f})"
        print(f"The model's validation loss: {loss}, {before.bits_per_byte:.4f} to {after.bits_per_byte:.4f} bits per byte")


def _validations(run: "Run", stores: list["TableStore"]) -> list["Validation"]:
    """torch is imported only where there is a model."""
    if not run.model_path.exists():
        return []
    from runtime.validation import validate_stores

    return validate_stores(run, stores)


def _size(place: Path) -> int:
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def _error(error: "LayerError") -> dict[str, Any]:
    return {
        "relative_rms_error": error.relative_rms_error,
        "snr_db": error.snr_db,
        "cosine": error.cosine,
        "saturated_codes": error.saturated,
        "rows_skipped": error.rows_skipped,
        "worst_rows": [{"row": row, "relative_error": relative} for relative, row in error.worst],
    }


def _error_cells(error: "LayerError") -> tuple[object, ...]:
    exact = "no loss" if error.snr_db is None else f"{error.snr_db:.1f}"
    worst = next((f"{row:,} ({relative:.2%})" for relative, row in error.worst), "none")
    return (
        error.layer,
        f"{error.relative_rms_error:.3%}",
        exact,
        f"{error.cosine:.6f}",
        error.saturated,
        error.rows_skipped,
        worst,
    )


@contextmanager
def _bar(label: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A progress bar in MiB; with no total, it only counts."""
    from engram_cli.output import progress

    done = 0
    with progress("MiB") as bars:
        task = bars.add_task(label, total=total_bytes / MIB if total_bytes else None)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bars.update(task, completed=done / MIB)

        yield advance
        bars.update(task, completed=total_bytes / MIB)
