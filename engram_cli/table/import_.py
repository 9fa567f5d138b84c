"""`engram table import`: a published table into a store, in bounded memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir
from engram_cli.table.options import EncodingName, Out, TableSpecName, TokenizerPath, VocabPath

if TYPE_CHECKING:
    from table.checkpoints.importer import Import
    from table.checkpoints.published import Checkpoint


def import_(
    source: Annotated[Path, typer.Argument(help="The folder of a checkpoint, or the demo's state dict (safetensors or .pt).")],
    out: Out = None,
    layer: Annotated[list[int] | None, typer.Option(help="Only this layer; repeat for more.")] = None,
    encoding: EncodingName = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    spec: TableSpecName = "",
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
    from engram_cli.output import note
    from hashing.base.atomic import refuse_overwrite
    from hashing.base.errors import EngramError, UsageError
    from runtime.run import Run
    from table.checkpoints.family import read_checkpoint
    from table.checkpoints.importer import Import
    from table.checkpoints.published import choose_layers
    from table.encodings.encoding import encoding as named_encoding

    place = out or Run(run).tables_path
    refuse_overwrite(place, force or dry_run)
    if not source.exists():
        raise EngramError(f"no such file or folder: {source}", hint="name a checkpoint's folder, or a state dict's file")
    if source.is_dir() and (spec or vocab):
        raise UsageError(
            "--spec and --vocab are for a state dict; a checkpoint's folder says itself how it is addressed",
            hint="leave them out",
        )
    found = read_checkpoint(source, tokenizer) if source.is_dir() else _state_dict(source, spec, vocab, layer or [])
    checkpoint = choose_layers(found, layer or []).check()
    plan = Import(checkpoint, named_encoding(encoding) if encoding else checkpoint.encoding)
    if dry_run:
        _print_plan(plan, place, json)
    else:
        _write(plan, place, json)
    for remark in checkpoint.notes:
        note(remark)


def _state_dict(source: Path, spec: str, vocab_path: Path | None, layers: list[int]) -> "Checkpoint":
    """The demo's tables, which say nothing of how they are addressed. Raises UsageError without a spec."""
    import numpy as np

    from engram_cli.table_shape import spec_over
    from hashing.base.errors import UsageError
    from hashing.vocab import CanonicalVocab
    from table.checkpoints.demo import read_demo
    from table.checkpoints.published import spec_of_layers

    if not spec:
        raise UsageError("a state dict does not say how its rows are addressed", hint="give --spec NAME, or a spec's JSON file")
    vocab = CanonicalVocab.load(vocab_path) if vocab_path else None
    whole = spec_over(spec, vocab)
    chosen = spec_of_layers(whole, layers) if layers else whole
    mapping = vocab.mapping if vocab else np.empty(0, np.int32)
    if source.suffix == ".safetensors":
        return read_demo(source, chosen, mapping)
    from runtime.state_dict import read_torch_demo

    return read_torch_demo(source, chosen, mapping)


def _write(plan: "Import", place: Path, json: bool) -> None:
    from engram_cli.interrupt import resumable
    from engram_cli.output import byte_progress
    from engram_cli.table.info import print_store

    with resumable(place), byte_progress("import", plan.written_bytes) as advance:
        store = plan.run(place, advance)
    print_store(store, json)


def _print_plan(plan: "Import", place: Path, json: bool) -> None:
    from engram_cli.output import byte_text, print_json

    checkpoint = plan.checkpoint
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
    print(f"{place}: {checkpoint.spec.total_rows:,} rows of layers {', '.join(content['layers'])} as {plan.encoding.name}")
    print(f"{read} would be read, {written} ({plan.written_bytes:,} bytes) written")
