"""`engram bench offload`: decoding with tables many times larger than the memory that they may take."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Json, RunDir

if TYPE_CHECKING:
    from engram_cli.bench.offload_speed import Turn

ROWS = 16 << 20
COLUMNS = {
    "tokens_per_sec": "tokens/s",
    "times_resident": "× resident",
    "first_ms": "first token, ms",
    "p50_ms": "p50, ms",
    "p95_ms": "p95",
    "p99_ms": "p99",
    "wait_microsec": "wait, µs a token",
    "hit_percent": "hits %",
}


def bench_offload(
    rows: Annotated[
        int, typer.Option(min=1000, help="Rows of the tables that take the place of the run's own, of all layers together.")
    ] = ROWS,
    cache: Annotated[str, typer.Option(help="How much memory rows may take on disk.")] = "512MiB",
    tokens: Annotated[int, typer.Option(min=8, help="Tokens decoded in a turn.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each placement.")] = 10,
    cold: Annotated[bool, typer.Option("--cold", help="Measure also with the files out of the system's memory.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the tables are written; removed afterwards.")] = Path("build"),
    plot: Annotated[Path | None, typer.Option(help="Draw the time of every step, FILE.png or FILE.svg.")] = None,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Decode with tables of random rows in each placement, in turns step by step, on the same texts.

    The tables are as large as asked for, so what is measured is where they lie and not what they hold. `resident` has all of
    them mapped and in memory, and no other placement can be faster. `disk` has as much as --cache says. `no prefetch` is the
    same files by page faults, a row at a time, when the layer needs it.

    Example: engram bench offload --rows 8_000_000 --cold

    Example: engram bench offload --rows 134217728 --cache 512MiB --json
    """
    from tempfile import TemporaryDirectory

    from engram_cli.bench.offload_speed import Bench
    from engram_cli.output import byte_text, note, print_json, print_table
    from engram_cli.pictures import check_format
    from hashing.base.byte_size import parse_bytes
    from runtime.run import Run

    if plot:
        check_format(plot)
    memory = parse_bytes(cache)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:
        bench = Bench.made(Run(run), rows, memory, tokens, Path(name))
        note(f"tables of {byte_text(bench.table_bytes)} in {name}, which are removed afterwards")
        turns = bench.turns(rounds, cold)
        growth = bench.cache_growth()
    ways = {way: figures(some, turns["resident"]) for way, some in turns.items()}
    if plot:
        draw(plot, turns)
    if json:
        sizes = {"table_bytes": bench.table_bytes, "cache_bytes": memory, "memory_growth_bytes": growth}
        print_json({**sizes, "tokens": tokens, "rounds": rounds, "placements": ways})
        return
    title = f"Decoding {tokens} tokens, {byte_text(bench.table_bytes)} of tables"
    columns = ("tables", *COLUMNS.values(), "in the system's memory before")
    lines = ((way, *(found[key] for key in COLUMNS), byte_text(found["resident_bytes"] or 0)) for way, found in ways.items())
    print_table(title, columns, lines)
    note(f"with a full cache of {byte_text(memory)} the process grew by {byte_text(growth)}")


def figures(turns: "Sequence[Turn]", resident: "Sequence[Turn]") -> dict[str, float | None]:
    """Of one way; medians over turns, percentiles over all their steps."""
    steps = [sec for turn in turns for sec in turn.step_sec]
    per_turn = [len(turn.step_sec) / sum(turn.step_sec) for turn in turns]
    unique, hit = sum(turn.unique for turn in turns), sum(turn.hit for turn in turns)
    beside = [len(turn.step_sec) / sum(turn.step_sec) for turn in resident]
    return {
        "tokens_per_sec": median(per_turn),
        "times_resident": median(own / other for own, other in zip(per_turn, beside, strict=True)),
        "first_ms": 1e3 * median(turn.first_sec for turn in turns),
        "p50_ms": 1e3 * percentile(steps, 50),
        "p95_ms": 1e3 * percentile(steps, 95),
        "p99_ms": 1e3 * percentile(steps, 99),
        "wait_microsec": 1e6 * fmean(turn.wait_sec / len(turn.likeliest) for turn in turns),
        "hit_percent": 100 * hit / unique if unique else None,
        "resident_bytes": median(turn.resident_bytes for turn in turns),
    }


def percentile(values: list[float], share: int) -> float:
    return quantiles(values, n=100, method="inclusive")[share - 1]


def draw(path: Path, turns: "Mapping[str, Sequence[Turn]]") -> None:
    """How many of the steps took at most so long."""
    from engram_cli.pictures import COLOURS, figure_of, label, save

    figure, (axes,) = figure_of(1)
    for (way, some), colour in zip(turns.items(), COLOURS, strict=False):
        steps = sorted(1e3 * sec for turn in some for sec in turn.step_sec)
        shares = [100 * (number + 1) / len(steps) for number in range(len(steps))]
        axes.step(steps, shares, where="post", label=way, color=colour)
    label(axes, "Time of a decoding step", "ms", "% of steps that took at most so long")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.legend(frameon=False)
    save(figure, path)
