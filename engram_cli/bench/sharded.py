"""`engram bench sharded`: training steps in several processes that share the rows, beside dense gradients of whole tables."""

from statistics import mean, median
from typing import Annotated, Any

import typer

from engram_cli.options import DEFAULT_RUN, Json, RunDir

COUNTS = [1, 2, 4]


def bench_sharded(
    processes: Annotated[list[int] | None, typer.Option(min=1, help="Numbers of processes; repeat for more.")] = None,
    rows: Annotated[int, typer.Option(min=64, help="Rows of a layer's table.")] = 20_000_000,
    peer_rows: Annotated[int, typer.Option(min=64, help="Rows of a layer where gradients are dense.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each, of which the median counts.")] = 11,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Take training steps in several processes of this machine, with the run's model and batches.

    Beside them the same with whole tables in every process, whose dense gradients are summed.

    Example: engram bench sharded

    Example: engram bench sharded --run runs/demo --processes 2 --rows 100000 --rounds 3 --json
    """
    from engram_cli.output import print_json
    from runtime.run import Run

    content = measure(Run(run), sorted(set(processes or COUNTS)), rows, peer_rows, rounds)
    if json:
        print_json(content)
    else:
        _print(content)


def measure(run: Any, counts: list[int], rows: int, peer_rows: int, rounds: int) -> dict[str, Any]:
    """Raises EngramError for a run without memory and UsageError for processes that cannot share its batches."""
    from engram_cli.bench import sharded_speed
    from engram_cli.bench.several import in_group
    from hashing.base.cores import CORES
    from hashing.base.errors import EngramError
    from runtime.train.peers import Peers
    from runtime.train.processes import check_processes

    config = run.config()
    if config.spec is None:
        raise EngramError(f"the run {run.folder} has no memory to measure", hint="name one that has, with --run")
    for count in counts:
        check_processes(config, Peers(0, count))
    found = {}
    for name, way, size in (("sharded", sharded_speed.sharded, rows), ("dense", sharded_speed.dense, peer_rows)):
        for count in counts:
            threads = max(1, CORES // count)
            members = in_group(count, way, run.folder, config, size, rounds, threads=threads)
            found[f"{name}_{count}"] = _figures(members)
    return {
        "rows": rows,
        "peer_rows": peer_rows,
        "batch_tokens": config.recipe.batch * config.recipe.length,
        "row_bytes": 4 * config.head_dim,
        "processes": counts,
        "ways": found,
    }


def _figures(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the slowest process the time, and of all of them what one sends in a step and has in memory."""
    sent = [mean(one["sent_bytes"]) for one in members if one["sent_bytes"]]
    least = [mean(one["least_bytes"]) for one in members if one.get("least_bytes")]
    return {
        "step_millisec": round(1e3 * max(median(one["step_sec"]) for one in members), 2),
        "sent_bytes": round(mean(sent)) if sent else 0,
        "least_bytes": round(mean(least)) if least else None,
        "peak_bytes": max(one["peak_bytes"] for one in members),
    }


def _print(content: dict[str, Any]) -> None:
    from engram_cli.output import byte_text, print_table

    rows = []
    for name, found in content["ways"].items():
        way, count = name.split("_")
        size = content["rows"] if way == "sharded" else content["peer_rows"]
        least = "" if found["least_bytes"] is None else byte_text(found["least_bytes"])
        sizes = byte_text(found["sent_bytes"]), least, byte_text(found["peak_bytes"])
        rows.append((f"{way}, {size:,} rows", int(count), found["step_millisec"], *sizes))
    title = f"A step of {content['batch_tokens']:,} tokens, rows of {content['row_bytes']} bytes"
    print_table(title, ("rows of a layer", "processes", "ms", "a process sends", "the least", "a process's peak"), rows)
    print("sent: for rows alone; the least: of each distinct row of another process its number, its vector and its gradient")
