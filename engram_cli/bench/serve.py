"""`engram bench serve`: tokens a second over HTTP, of one text and of many at a time."""

from statistics import median
from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Json, RunDir

STREAMS = [1, 4, 16, 32]


def bench_serve(
    streams: Annotated[list[int], typer.Option(min=1, help="How many texts are asked for at a time.")] = STREAMS,
    tokens: Annotated[int, typer.Option(min=2, help="Of each text.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way.")] = 5,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Ask a server of its own for texts, streamed and whole, and compare with one text generated in this process.

    Figures are medians over the turns; ways are compared within each turn, which lasts a few seconds.
    The server's memory is looked at after every turn.

    Example: engram bench serve

    Example: engram bench serve --streams 1 --streams 16 --tokens 200 --json
    """
    from engram_cli.bench.resident import resident_bytes
    from engram_cli.bench.serve_speed import served, turns
    from engram_cli.output import byte_text, note, print_json, print_table
    from runtime.run import Run
    from runtime.serve.run_generator import RunGenerator

    generator = RunGenerator.load(Run(run), "disk")
    with served(run) as (port, server):
        _, *counted = [
            (speeds, resident_bytes(server)) for speeds in turns(generator, run.resolve().name, port, streams, tokens, rounds)
        ]
    speeds = {way: median(speeds[way] for speeds, _ in counted) for way in counted[0][0]}
    least, most = min(resident for _, resident in counted), max(resident for _, resident in counted)
    single = speeds["generate", 1]
    found = [
        {
            "streams": count,
            "streamed_tokens_per_sec": speeds["streamed", count],
            "whole_tokens_per_sec": speeds["whole", count],
            "times_first": median(turn["streamed", count] / turn["streamed", streams[0]] for turn, _ in counted),
            "streaming_cost": median(turn["whole", count] / turn["streamed", count] for turn, _ in counted) - 1,
        }
        for count in streams
    ]
    if json:
        memory = {"least_resident_bytes": least, "most_resident_bytes": most}
        print_json({"tokens": tokens, "generate_tokens_per_sec": single, "served": found, **memory})
        return
    columns = ("texts at a time", "streamed tokens/s", "whole tokens/s", f"× {streams[0]} streamed", "streaming costs %")
    title = f"{tokens} tokens each; `engram generate` in one process: {single:,.0f} tokens/s"
    rows = ([str(count), *figures, 100 * cost] for count, *figures, cost in (line.values() for line in found))
    print_table(title, columns, rows)
    note(f"after each turn the server had {byte_text(least)} to {byte_text(most)} of memory")
