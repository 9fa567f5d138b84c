"""`engram bench gather`: rows per second, warm and cold, beside other ways."""

from pathlib import Path
from typing import Annotated

import typer

from engram_cli.options import Json

WAYS = {
    "engram": "engram, float32",
    "engram_fp8": "engram, e4m3-e8m0 decoded",
    "index_select": "torch.index_select",
    "index_select_into": "torch.index_select, out=",
    "engramdb": "engramdb-python Store.fetch",
    "fault_at_a_time": "one page fault at a time",
    "fault_at_a_time_readahead": "one fault at a time, kernel read-around",
    "plain_pread": "the drive: plain threaded pread",
}


def bench_gather(
    table_mib: Annotated[int, typer.Option(min=16, help="Size of the float32 table, MiB.")] = 1024,
    rows: Annotated[int, typer.Option(min=1024, help="Rows gathered at a time, warm.")] = 1 << 20,
    cold_rows: Annotated[int, typer.Option(min=64, help="Rows gathered at a time, cold.")] = 2000,
    folder: Annotated[Path, typer.Option(help="Where the table is put; removed afterwards.")] = Path("build"),
    json: Json = False,
) -> None:
    """Gather random 256-byte rows, warm and cold, and compare with torch, engramdb-python and plain page faults.

    Example: engram bench gather

    Example: engram bench gather --table-mib 256 --rows 100000 --json
    """
    from tempfile import TemporaryDirectory

    from engram_cli.bench.gather_speed import cold_rates, make_tables, warm_rates
    from engram_cli.output import note, print_json, print_table

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:
        note(f"making a table of {table_mib:,} MiB in {name}")
        store, fp8 = make_tables(Path(name), table_mib << 20)
        warm = warm_rates(store, fp8, rows, Path(name) / "engramdb")
        cold = cold_rates(store, cold_rows)
    content = {
        "table_bytes": store.total_bytes,
        "row_bytes": store.row_bytes,
        "rows": rows,
        "cold_rows": cold_rows,
        "warm_rows_per_sec": warm,
        "cold_rows_per_sec": cold,
        "times_index_select": warm["engram"] / warm["index_select"],
        "times_index_select_into": warm["engram"] / warm["index_select_into"],
        "fp8_times_index_select": warm["engram_fp8"] / warm["index_select"],
        "times_engramdb": warm["engram"] / warm["engramdb"] if "engramdb" in warm else None,
        "cold_times_fault_at_a_time": cold["engram"] / cold["fault_at_a_time"],
        "cold_drive_percent": 100 * cold["engram"] / cold["plain_pread"],
    }
    if json:
        print_json(content)
        return
    for title, rates in (("Warm", warm), ("Cold", cold)):
        shown = ((WAYS[way], rate, rates["engram"] / rate) for way, rate in rates.items())
        print_table(f"{title} rows of {store.row_bytes} bytes", ("way", "rows/s", "engram is ×"), shown)
    if "engramdb" not in warm:
        note("engramdb-python is not installed: pip install 'engram-tables[bench]' adds it")
