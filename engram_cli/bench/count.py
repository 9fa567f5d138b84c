"""`engram bench count`: n-grams counted a second, and the memory it takes, beside duckdb and numpy."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import Json

if TYPE_CHECKING:
    from engram_cli.bench.count_speed import CountSpeed

RANDOM_IDS = 99_092  # as many as DeepSeek-V4 has canonical ones
SIZES = (100_000, 1_000_000, 4_000_000)  # tokens
ORDERS = (2, 3, 4)
WAYS = {
    "engram": "engram",
    "duckdb": "duckdb",
    "numpy": "numpy",
    "engram_file": "engram, file written",
    "duckdb_file": "duckdb, file written",
}


def bench_count(
    tokens: Annotated[list[int] | None, typer.Option(min=10_000, help="Tokens counted; repeat for more sizes.")] = None,
    ids: Annotated[Path | None, typer.Option(help="A .npy file of token ids to count, instead of random ones.")] = None,
    order: Annotated[list[int] | None, typer.Option(min=2, max=6, help="An order to count; repeat for more.")] = None,
    folder: Annotated[Path, typer.Option(help="Where files are written; removed afterwards.")] = Path("build"),
    json: Json = False,
) -> None:
    """Time the counting of n-grams, and measure its memory, beside duckdb and numpy on the same ids.

    Example: engram bench count

    Example: engram bench count --tokens 1000000 --order 3 --json
    """
    from tempfile import TemporaryDirectory

    import numpy as np

    from engram_cli.bench.count_speed import THREADS, measure, peak_bytes, skewed_ids
    from engram_cli.output import note, print_json
    from hashing.base.errors import EngramError
    from hashing.text.token_stream import array_pieces

    sizes = tokens or SIZES
    stream = skewed_ids(max(sizes), RANDOM_IDS)
    if ids:
        pieces = [piece.token_ids for piece in array_pieces(ids, "") if len(piece.token_ids)]
        if not pieces:
            raise EngramError(f"{ids} holds no token ids to count")
        stream = np.concatenate(pieces)[: max(sizes)].astype(np.int32)
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = max(int(stream.max()) + 1, RANDOM_IDS)
    found: list[tuple[CountSpeed, dict[str, int]]] = []
    with TemporaryDirectory(dir=folder) as name:
        for n in order or ORDERS:
            for size in sizes:
                speed = measure(stream[:size], vocab_size, n, Path(name))
                found.append((speed, {way: peak_bytes(way, stream[:size], vocab_size, n, Path(name)) for way in speed.sec}))
    threads = {way: THREADS[way] for way in found[0][0].sec}
    if json:
        print_json({"threads": threads, "counts": [_content(speed, peaks) for speed, peaks in found]})
        return
    for speed, peaks in found:
        _print(speed, peaks, threads)
    if "duckdb" not in threads:
        note("duckdb is not installed: pip install 'engram-tables[bench]' adds it")


def _content(speed: "CountSpeed", peaks: dict[str, int]) -> dict[str, Any]:
    return asdict(speed) | {
        "peak_bytes": peaks,
        "times_numpy": speed.times("numpy", "engram"),
        "times_duckdb": speed.times("duckdb", "engram"),
        "times_duckdb_file": speed.times("duckdb_file", "engram_file"),
    }


def _print(speed: "CountSpeed", peaks: dict[str, int], threads: dict[str, int]) -> None:
    from engram_cli.output import print_table

    def line(way: str) -> tuple[object, ...]:
        ours = "engram_file" if way.endswith("_file") else "engram"
        sec, written = speed.sec[way], speed.file_bytes.get(way)
        memory = peaks[way] / 1e6
        size = "" if written is None else written / 1e6
        return WAYS[way], threads[way], 1000 * sec, speed.tokens / sec / 1e6, speed.times(way, ours), memory, size

    print_table(
        f"{speed.order}-grams of {speed.tokens:,} tokens, {speed.distinct:,} distinct",
        ("way", "threads", "ms", "M tokens/s", "engram is ×", "memory MB", "file MB"),
        (line(way) for way in WAYS if way in speed.sec),
    )
