"""`engram bench`: the figures in the documentation, measured on this machine."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.bench.count import bench_count
from engram_cli.bench.gather import bench_gather
from engram_cli.bench.table import bench_table
from engram_cli.options import Json

if TYPE_CHECKING:
    from engram_cli.bench.hash_speed import HashSpeed

app = typer.Typer(help="Measure speed on this machine, against a plain form of the same thing.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure speed on this machine, against a plain form of the same thing."""


app.command("count")(bench_count)
app.command("gather")(bench_gather)
app.command("table")(bench_table)


@app.command("hash")
def bench_hash(
    spec: Annotated[list[str] | None, typer.Option(help="A named spec; repeat for more.")] = None,
    tokens: Annotated[int, typer.Option(min=4096, help="Tokens hashed at a time.")] = 1 << 17,
    json: Json = False,
) -> None:
    """Time the compiled hash against the plain numpy form of the same rule.

    Example: engram bench hash

    Example: engram bench hash --spec deepseek-v4.1 --json
    """
    from engram_cli.bench.hash_speed import LABELS, measure
    from engram_cli.output import print_json, print_table
    from hashing.named_specs import named_spec

    names = spec or ["engram-demo", "deepseek-v4.1"]
    speeds = {name: measure(named_spec(name).bare_spec(), tokens) for name in names}
    if json:
        print_json({"specs": {name: _report(speed) for name, speed in speeds.items()}})
        return
    for name, speed in speeds.items():
        shape = f"{len(speed.spec.layers)} layers, {speed.spec.columns} columns each"
        print_table(
            f"{name}: {shape}, {speed.tokens:,} tokens, {speed.threads} threads",
            ("rows", "tokens/s", "× numpy", "ns per row", "GB/s written"),
            ((LABELS[way], *values.values()) for way, values in _report(speed)["ways"].items()),
        )


def _report(speed: "HashSpeed") -> dict[str, Any]:
    ways = {
        way: {
            "tokens_per_sec": round(speed.tokens_per_sec(way)),
            "times_numpy": round(speed.times_numpy(way), 1),
            "row_nanosec": round(speed.column_nanosec(way), 3),
            "written_gigabytes_per_sec": round(speed.written_bytes_per_sec(way) / 1e9, 2),
        }
        for way in speed.seconds
    }
    shape = {"layers": len(speed.spec.layers), "columns": speed.spec.columns}
    return {**shape, "tokens": speed.tokens, "threads": speed.threads, "ways": ways}
