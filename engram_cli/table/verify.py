"""`engram table verify`: the faults of a store or of a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Json, RunDir
from engram_cli.table.options import TokenizerPath, store_path


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
    from engram_cli.output import byte_progress, note, print_json
    from runtime.run import Run
    from table.verify import verify as examine

    place = store_path(path, Run(run))
    with byte_progress("verify", _file_bytes(place)) as advance:
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


def _file_bytes(place: Path) -> int:
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
