"""`engram bench hash`: rows per second by batch size, beside numpy and the speed of memory."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import Json

if TYPE_CHECKING:
    from engram_cli.bench.hash_speed import HashSpeed


def bench_hash(
    spec: Annotated[list[str] | None, typer.Option(help="A named spec; repeat for more.")] = None,
    tokens: Annotated[list[int] | None, typer.Option(min=1, help="Tokens hashed at a time; repeat for more.")] = None,
    json: Json = False,
) -> None:
    """Time the compiled hash by batch size, beside numpy's forms of the same rule and beside filling memory.

    Example: engram bench hash

    Example: engram bench hash --spec deepseek-v4.1 --tokens 2048 --json
    """
    from engram_cli.bench.hash_speed import measure
    from engram_cli.output import print_json, print_table
    from hashing.named_specs import named_spec

    names = spec or ["engram-demo", "deepseek-v4.1"]
    speeds = {name: measure(named_spec(name).bare_spec(), tokens or [1, 48, 2048, 1 << 17]) for name in names}
    if json:
        print_json({"specs": {name: _report(sizes) for name, sizes in speeds.items()}})
        return
    headings = ("rows", "threads", "µs a layer", "given memory is ×", "ns per row", "GB/s written")
    for name, sizes in speeds.items():
        for speed in sizes:
            shape = f"{len(speed.spec.layers)} layers, {speed.spec.columns} columns each"
            print_table(f"{name}: {shape}, {speed.tokens:,} tokens a call", headings, _lines(speed))


def _lines(speed: "HashSpeed") -> list[tuple[object, ...]]:
    from engram_cli.bench.hash_speed import WAYS

    return [(WAYS[way], *_figures(speed, way).values()) for way in speed.seconds]


def _figures(speed: "HashSpeed", way: str) -> dict[str, float]:
    return {
        "threads": speed.threads(way),
        "layer_microsec": round(speed.layer_microsec(way), 2),
        "given_is_times": round(speed.times(way), 2),
        "row_nanosec": round(speed.row_nanosec(way), 3),
        "written_gigabytes_per_sec": round(speed.written_gigabytes_per_sec(way), 2),
    }


def _report(sizes: "list[HashSpeed]") -> dict[str, Any]:
    from engram_cli.bench.hash_speed import NUMPY_WAYS

    return {
        "layers": len(sizes[0].spec.layers),
        "columns": sizes[0].spec.columns,
        "sizes": [
            {
                "tokens": speed.tokens,
                "tokens_per_sec": round(speed.tokens / speed.seconds["given"]),
                "times_fastest_numpy": round(min(speed.times(way) for way in NUMPY_WAYS), 1),
                "ways": {way: _figures(speed, way) for way in speed.seconds},
            }
            for speed in sizes
        ],
    }
