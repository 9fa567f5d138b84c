"""`engram bench table`: import, export and verification beside `cp` and plain reading."""

from pathlib import Path
from typing import Annotated

import typer

from engram_cli.options import Json

WAYS = {
    "cp": "cp",
    "import": "engram table import",
    "export": "engram table export",
    "read": "plain reading of the store, one thread",
    "read_together": "plain reading, a thread a core",
    "verify": "engram table verify --full",
}


def bench_table(
    checkpoint_mib: Annotated[int, typer.Option(min=64, help="Size of the checkpoint, MiB.")] = 1024,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way, of which the best counts.")] = 8,
    folder: Annotated[Path, typer.Option(help="Where it is put; removed afterwards.")] = Path("build"),
    json: Json = False,
) -> None:
    """Import, export and verify a DeepSeek-V4.1 checkpoint of random codes, and compare with cp and plain reading.

    Example: engram bench table

    Example: engram bench table --checkpoint-mib 256 --json
    """
    from tempfile import TemporaryDirectory

    from engram_cli.bench.copy_speed import copy_rates
    from engram_cli.output import print_json, print_table

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:
        rates = copy_rates(Path(name), checkpoint_mib << 20, rounds)
    content = {
        "checkpoint_mib": checkpoint_mib,
        "bytes_per_sec": rates,
        "import_times_cp": rates["import"] / rates["cp"],
        "export_times_cp": rates["export"] / rates["cp"],
        "verify_times_read": rates["verify"] / rates["read"],
        "verify_times_read_together": rates["verify"] / rates["read_together"],
    }
    if json:
        print_json(content)
        return
    shown = ((WAYS[way], rate / 1e9, rate / rates["cp"], rate / rates["read"]) for way, rate in rates.items())
    print_table(f"A checkpoint of {checkpoint_mib:,} MiB", ("way", "GB/s", "× cp", "× reading"), shown)
