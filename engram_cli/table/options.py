"""Options that several commands of `engram table` share, each described once."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

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
