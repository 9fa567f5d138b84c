"""`engram table export`: an imported table as the checkpoint files it came from."""

from pathlib import Path
from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir
from engram_cli.table.options import StorePath, store_path


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
    from engram_cli.output import byte_progress, print_json
    from hashing.base.atomic import refuse_overwrite
    from runtime.run import Run
    from table.checkpoints.exporter import export as write
    from table.store.store import TableStore

    store = TableStore.open(store_path(path, Run(run)))
    refuse_overwrite(out, force)
    with byte_progress("export", store.total_bytes) as advance:
        write(store, out, advance)
    files = {file.name: file.stat().st_size for file in sorted(out.iterdir())}
    if json:
        print_json({"path": str(out), "files": [{"name": name, "size_bytes": size} for name, size in files.items()]})
        return
    for name, size in files.items():
        print(f"{out / name}: {size:,} bytes")
