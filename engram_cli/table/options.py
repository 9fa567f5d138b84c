"""Options that several commands of `engram table` share, each described once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from runtime.run import Run

StorePath: TypeAlias = Annotated[Path | None, typer.Argument(help="The table store. Default: the run's.")]
Out: TypeAlias = Annotated[Path | None, typer.Option("--out", help="Where the store is written. Default: the run's tables.")]
EncodingName: TypeAlias = Annotated[
    str, typer.Option("--encoding", help="How rows are stored: bfloat16, e4m3-e8m0, int8, int4 …")
]
TokenizerPath: TypeAlias = Annotated[
    Path | None, typer.Option(help="The tokenizer.json, if it does not lie in the checkpoint's folder.")
]
TableSpecName: TypeAlias = Annotated[str, typer.Option("--spec", help="A named hash spec, or the path of one in JSON.")]
VocabPath: TypeAlias = Annotated[Path | None, typer.Option("--vocab", help="The vocab.parquet that rows are addressed with.")]


def store_path(path: Path | None, run: "Run") -> Path:
    """The store that is named, or the run's. Raises EngramError when that run was trained without memory."""
    if path is None:
        run.require_memory()
        run.require(run.tables_path, "train")
    return path or run.tables_path
