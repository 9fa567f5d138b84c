"""`engram bench`: the figures in the documentation, measured on this machine."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from engram_cli.bench.decode import bench_decode
from engram_cli.bench.gather import bench_gather
from engram_cli.bench.hash import bench_hash
from engram_cli.bench.table import bench_table
from engram_cli.options import Json

RANDOM_IDS = 99_092  # as many as DeepSeek-V4 has canonical ones

app = typer.Typer(help="Measure speed on this machine, against a plain form of the same thing.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure speed on this machine, against a plain form of the same thing."""


app.command("decode")(bench_decode)
app.command("gather")(bench_gather)
app.command("hash")(bench_hash)
app.command("table")(bench_table)


@app.command("count")
def bench_count(
    tokens: Annotated[int, typer.Option(min=10_000, help="Tokens counted.")] = 4_000_000,
    ids: Annotated[Path | None, typer.Option(help="A .npy file of token ids to count, instead of random ones.")] = None,
    json: Json = False,
) -> None:
    """Time the counting of n-grams against numpy's unique on the same ids.

    Example: engram bench count

    Example: engram bench count --tokens 1000000 --json
    """
    import numpy as np

    from engram_cli.bench.count_speed import measure, skewed_ids
    from engram_cli.output import print_json, print_table
    from hashing.text.token_stream import array_pieces

    size = RANDOM_IDS
    stream = skewed_ids(tokens, size)
    if ids:
        stream = np.concatenate([piece.token_ids for piece in array_pieces(ids, "")])[:tokens].astype(np.int64)
        size = int(stream.max()) + 1
    speeds = [measure(stream, size, (2, 3)), measure(stream[: tokens // 4], size, (4,))]
    if json:
        print_json({"counts": [{**asdict(speed), "times_numpy": speed.times_numpy} for speed in speeds]})
        return
    rows = (
        (", ".join(map(str, s.orders)), s.tokens, s.distinct, s.tokens / s.numpy_sec, s.tokens / s.compiled_sec, s.times_numpy)
        for s in speeds
    )
    print_table("Counting", ("orders", "tokens", "distinct", "numpy tokens/s", "compiled tokens/s", "× numpy"), rows)
