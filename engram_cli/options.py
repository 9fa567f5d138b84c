"""Options that several commands share, each described once."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

RunDir: TypeAlias = Annotated[Path, typer.Option("--run", help="The run: the folder that commands pass on.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]
CorpusPaths: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--corpus", help="A file or folder of text; repeat for more. Default: the Python standard library's source."),
]
TextKey: TypeAlias = Annotated[str, typer.Option(help="Key of the text in JSONL lines.")]
TextColumn: TypeAlias = Annotated[str, typer.Option(help="Column of the text in Parquet files.")]

DEFAULT_RUN = Path("runs/default")
