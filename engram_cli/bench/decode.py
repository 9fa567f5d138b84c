"""`engram bench decode`: the time of decoding a token, with the tables in each place, alone and beside other work."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import fmean, median
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from engram_cli.options import DEFAULT_RUN, Json, RunDir

if TYPE_CHECKING:
    from runtime.serve.run_generator import RunGenerator

PROMPT = "def __init__(self"


def bench_decode(
    tokens: Annotated[int, typer.Option(min=8, help="Tokens decoded in a turn.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each placement.")] = 20,
    busy: Annotated[int, typer.Option(min=0, help="Busy processes of the second measurement.")] = 2,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Decode with the run's model, its tables on the device, in host memory and on disk, and compare.

    Then the same beside busy processes, as on a machine that has other work.

    Example: engram bench decode

    Example: engram bench decode --run runs/demo --busy 1 --json
    """
    import torch

    from engram_cli.output import print_json, print_table
    from runtime.placement.placement import PlacementName
    from runtime.run import Run
    from runtime.serve.run_generator import RunGenerator

    names: tuple[PlacementName, ...] = get_args(PlacementName)
    generators: dict[str, RunGenerator] = {name: RunGenerator.load(Run(run), name) for name in names}
    alone = step_sec(generators, tokens, rounds, median)
    with ExitStack() as others:
        for _ in range(busy):
            others.enter_context(busy_process())
        beside = step_sec(generators, tokens, rounds, fmean)  # who gets a processor changes from turn to turn
    placements = {
        name: {
            "step_microsec": alone[name] * 1e6,
            "tokens_per_sec": 1 / alone[name],
            "times_device": alone["device"] / alone[name],
            "busy_tokens_per_sec": 1 / beside[name],
            "busy_times_alone": alone[name] / beside[name],
        }
        for name in names
    }
    if json:
        print_json({"tokens": tokens, "threads": torch.get_num_threads(), "busy": busy, "placements": placements})
        return
    columns = ("tables on", "µs a token", "tokens/s", "× device", f"tokens/s beside {busy} busy", "× alone")
    title = f"Decoding {tokens} tokens; threads of torch: {torch.get_num_threads()}"
    print_table(title, columns, ((name, *figures.values()) for name, figures in placements.items()))


def step_sec(
    generators: "dict[str, RunGenerator]", tokens: int, rounds: int, middle: Callable[[list[float]], float]
) -> dict[str, float]:
    """Seconds a token with each placement, in the middle of its turns."""
    from engram_cli.bench.timing import time_in_turn

    ways = {name: lambda generator=generator: decode(generator, tokens) for name, generator in generators.items()}
    return {name: middle(seconds) / tokens for name, seconds in time_in_turn(ways, rounds).items()}


def decode(generator: "RunGenerator", tokens: int) -> list[int]:
    """Greedy token ids, as many as asked for, after the prompt."""
    sequence, following = generator.sequence(), generator.encode(PROMPT)
    found = []
    for _ in range(tokens):
        following = [int(sequence.feed(following).argmax())]
        found += following
    return found


@contextmanager
def busy_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes for the length of the block."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield process
        finally:
            process.kill()
