"""`engram bench gather`: microseconds a call by number of rows, from memory and from the drive, beside other ways."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import Json

if TYPE_CHECKING:
    from engram_cli.bench.gather_speed import BatchSpeed

WAYS = {
    "engram": "engram",
    "engram_fp8": "engram, fp8",
    "numpy_take": "np.take",
    "torch_index_select": "index_select",
    "torch_embedding": "F.embedding",
    "engramdb": "engramdb",
}
COLD_WAYS = {
    "engram": "engram: asked ahead, then gathered",
    "fault_at_a_time": "one page fault at a time",
    "fault_at_a_time_readahead": "one fault at a time, kernel read-around",
    "plain_pread": "the drive: plain threaded pread",
}


def bench_gather(
    table_mib: Annotated[int, typer.Option(min=16, help="Size of the float32 table, MiB.")] = 1024,
    rows: Annotated[list[int] | None, typer.Option(min=1, help="Rows of a call; repeat for more.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way, of which the median counts.")] = 21,
    cold_rows: Annotated[int, typer.Option(min=64, help="Rows gathered at a time, cold.")] = 2000,
    folder: Annotated[Path, typer.Option(help="Where the table is put; removed afterwards.")] = Path("build"),
    json: Json = False,
) -> None:
    """Gather random 256-byte rows, warm and cold, beside numpy, torch, engramdb-python and plain page faults.

    Example: engram bench gather

    Example: engram bench gather --table-mib 256 --rows 48 --rows 1000 --json
    """
    from tempfile import TemporaryDirectory

    from engram_cli.bench.cold_speed import cold_rates
    from engram_cli.bench.gather_speed import SIZES, make_tables, measure
    from engram_cli.output import note, print_json
    from hashing.base.errors import UsageError

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:
        note(f"making a table of {table_mib:,} MiB in {name}")
        store, fp8 = make_tables(Path(name), table_mib << 20)
        sizes = rows or [size for size in SIZES if size <= store.total_rows]
        if max(sizes) > store.total_rows:
            raise UsageError(
                f"--rows is {max(sizes):,}, but the table has {store.total_rows:,}", hint="pass a larger --table-mib"
            )
        speeds = [measure(store, fp8, size, Path(name), rounds) for size in sizes]
        cold = cold_rates(store, cold_rows)
    content = {
        "table_bytes": store.total_bytes,
        "row_bytes": store.row_bytes,
        "batches": [_report(speed) for speed in speeds],
        "cold_rows": cold_rows,
        "cold_rows_per_sec": cold,
    }
    if json:
        print_json(content)
    else:
        _print(content)


def _report(speed: "BatchSpeed") -> dict[str, Any]:
    """What the document says of one number of rows."""
    from engram_cli.bench.gather_speed import threads

    return {
        "rows": speed.rows,
        "threads": threads(speed.rows),
        "given_microsec": _microseconds(speed.given_sec),
        "fresh_microsec": _microseconds(speed.fresh_sec),
        "times_fastest_peer": {way: round(speed.times_fastest_peer(way), 3) for way in ("engram", "engram_fp8")},
        "moved_bytes_per_sec": round(speed.moved_bytes_per_sec(speed.given_sec["engram"])),
        "copied_bytes_per_sec": round(speed.moved_bytes_per_sec(speed.copy_sec)),
    }


def _microseconds(seconds: dict[str, float]) -> dict[str, float]:
    return {way: round(1e6 * value, 2) for way, value in seconds.items()}


def _print(content: dict[str, Any]) -> None:
    from engram_cli.output import note, print_table

    batches = content["batches"]
    ways = [way for way in WAYS if any(way in batch["fresh_microsec"] for batch in batches)]
    given = [way for way in ways if way != "engramdb"]
    names = tuple(WAYS[way] for way in ways)
    print_table(
        f"Rows of {content['row_bytes']} bytes from memory into memory that is there: µs a call",
        ("rows", *(WAYS[way] for way in given), "× fastest peer", "fp8 ×", "GB/s moved", "GB/s of a copy"),
        ((f"{b['rows']:,}", *(b["given_microsec"][way] for way in given), *_compared(b)) for b in batches),
    )
    print_table(
        "Into memory that each call allocates: µs a call",
        ("rows", *names),
        ((f"{b['rows']:,}", *(b["fresh_microsec"].get(way) for way in ways)) for b in batches),
    )
    print_table(
        "Threads that each may use",
        ("rows", *names),
        ((f"{b['rows']:,}", *(b["threads"][way] for way in ways)) for b in batches),
    )
    rates = content["cold_rows_per_sec"]
    shown = ((COLD_WAYS[way], rate, rates["engram"] / rate) for way, rate in rates.items())
    print_table(f"{content['cold_rows']:,} rows from the drive", ("way", "rows/s", "engram is ×"), shown)
    if "engramdb" not in ways:
        note("engramdb-python is not installed: pip install 'engram-tables[bench]' adds it")


def _compared(batch: dict[str, Any]) -> tuple[float, ...]:
    """A batch's figures beside the fastest peer's and a plain copy's."""
    speeds = (batch["moved_bytes_per_sec"] / 1e9, batch["copied_bytes_per_sec"] / 1e9)
    return (batch["times_fastest_peer"]["engram"], batch["times_fastest_peer"]["engram_fp8"], *speeds)
