"""`engram bench train`: a training step by size of the tables, beside no memory and beside torch's own embeddings."""

from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import DEFAULT_RUN, Json, RunDir

if TYPE_CHECKING:
    from runtime.config import RunConfig
    from runtime.run import Run

PEER_ROWS = 1_000_000
TABLE_ROWS = [100_000, PEER_ROWS, 20_000_000]
WITHOUT = "none"
PEERS = {"sparse_adam": True, "adam": False}  # whether gradients of their rows are sparse


def bench_train(
    rows: Annotated[list[int] | None, typer.Option(min=64, help="Rows of a layer's table; repeat for more.")] = None,
    peer_rows: Annotated[int, typer.Option(min=64, help="Rows of a layer for torch's embeddings.")] = PEER_ROWS,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way, a step each, of which the median counts.")] = 31,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Take training steps with the run's model and corpus: with tables of several sizes, and without memory.

    Beside them the same model with its rows on disk, and in torch's embeddings, on SparseAdam and on Adam over whole tables.

    Example: engram bench train

    Example: engram bench train --run runs/demo --rows 400000 --rounds 11 --json
    """
    from engram_cli.output import print_json
    from runtime.run import Run

    target = Run(run)
    content = measure(target, target.config(), [*dict.fromkeys(rows or TABLE_ROWS)], peer_rows, rounds)
    if json:
        print_json(content)
    else:
        _print(content)


def measure(run: "Run", config: "RunConfig", sizes: list[int], peer_rows: int, rounds: int) -> dict[str, Any]:
    """Raises EngramError for a run without memory and for tables that this machine has no memory for."""
    import torch

    from engram_cli.bench.timing import time_in_turn
    from engram_cli.bench.train_speed import Peer, disk_seconds, part_seconds, trainer, with_rows, without_memory

    _check_memory(run, config, [*sizes, peer_rows])
    peer_config = with_rows(config, run, peer_rows)
    own = {_named(size): trainer(run, with_rows(config, run, size)) for size in [*sizes, peer_rows]}
    plain = trainer(run, without_memory(config))
    peers = {name: Peer(run, peer_config, sparse) for name, sparse in PEERS.items()}
    ways = {WITHOUT: plain.train_step, **{name: one.train_step for name, one in own.items()}}
    ways |= {name: peer.train_step for name, peer in peers.items()}
    seconds = {name: median(found) for name, found in time_in_turn(ways, rounds).items()}
    on_disk = disk_seconds(run, peer_config, own[_named(peer_rows)], max(1, rounds // 8))
    disk = {name: median(found) for name, found in on_disk.items()}
    first = next(iter(own))
    parts = {name: median(found) for name, found in part_seconds(own[first], rounds).items()}
    return {
        "threads": torch.get_num_threads(),
        "precision": config.precision,
        "batch_tokens": config.recipe.batch * config.recipe.length,
        "peer_rows": peer_rows,
        "step_millisec": {name: round(1e3 * found, 2) for name, found in seconds.items()},
        "disk_millisec": {name: round(1e3 * found, 2) for name, found in disk.items()},
        "disk_times_memory": round(disk["disk"] / disk["memory"], 3),
        **_shares(seconds, parts, first, _named(peer_rows), list(own)),
        "part_millisec": {name: round(1e3 * found, 3) for name, found in parts.items()},
    }


def _shares(
    seconds: dict[str, float], parts: dict[str, float], first: str, beside_peers: str, own: list[str]
) -> dict[str, Any]:
    """What the figures come to: of the step with the first tables, and beside each peer."""
    from engram_cli.bench.train_speed import ROW_PARTS

    whole = seconds[first]
    return {
        "memory_percent": round(100 * (1 - seconds[WITHOUT] / whole), 1),
        "rows_percent": round(100 * sum(parts[part] for part in ROW_PARTS) / whole, 1),
        "times_first_tables": {name: round(seconds[name] / whole, 3) for name in own},
        "times_peer": {peer: round(seconds[beside_peers] / seconds[peer], 3) for peer in PEERS},
    }


def _named(rows: int) -> str:
    return f"rows_{rows}"


def _check_memory(run: "Run", config: "RunConfig", sizes: list[int]) -> None:
    import torch

    from engram_cli.bench.train_speed import table_bytes, with_rows
    from engram_cli.output import byte_text
    from hashing.base.errors import EngramError
    from runtime.device import default_device, memory_bytes

    if config.spec is None:
        raise EngramError(f"the run {run.folder} has no memory to measure", hint="name one that has, with --run")
    needed = sum(table_bytes(with_rows(config, run, size)) for size in sizes)
    had = memory_bytes(default_device() if torch.cuda.is_available() else torch.device("cpu"))
    if needed > had:
        raise EngramError(
            f"the tables take {byte_text(needed)}, but the machine has {byte_text(had)}", hint="ask for fewer --rows"
        )


def _print(content: dict[str, Any]) -> None:
    from engram_cli.output import print_table

    steps, times = content["step_millisec"], content["times_first_tables"]
    title = f"A step of {content['batch_tokens']:,} tokens in {content['precision']}, {content['threads']} threads"
    shown = ((_shown(name), ms, ms / steps[WITHOUT], times.get(name)) for name, ms in steps.items())
    print_table(title, ("memory", "ms", "× none", "× the first tables"), shown)
    first = next(iter(times))
    parts = ((name.replace("_", " "), ms, 100 * ms / steps[first]) for name, ms in content["part_millisec"].items())
    print_table(f"Of the step with {_shown(first)}, each part by itself", ("part", "ms", "% of the step"), parts)
    print(f"memory {content['memory_percent']} % of the step, rows {content['rows_percent']} %")
    millisec = content["disk_millisec"]
    print(
        f"{content['peer_rows']:,} rows a layer on disk: {content['disk_times_memory']} of the time in memory "
        f"({millisec['disk']} and {millisec['memory']} ms a step)"
    )
    for peer, ratio in content["times_peer"].items():
        print(f"{content['peer_rows']:,} rows a layer: {ratio} of the time of {_shown(peer)}")


def _shown(name: str) -> str:
    if name.startswith("rows_"):
        return f"{int(name.removeprefix('rows_')):,} rows a layer"
    return {WITHOUT: "none", "sparse_adam": "nn.Embedding(sparse=True), SparseAdam", "adam": "nn.Embedding, Adam"}[name]
