"""`engram generate`: text from a trained run."""

import sys
import time
from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Json, Offload, PlacementOption, RunDir, checked_text


def generate(
    prompt: Annotated[str, typer.Argument(help="What the text begins with.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="At most so many new tokens.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token every time.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Sample among the likeliest tokens that sum to this.")] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampling.")] = None,
    offload: Offload = False,
    placement: PlacementOption = None,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Continue a text.

    Example: engram generate "def __init__(self"

    Example: engram generate "import " --temperature 0.8 --offload --json
    """
    from engram_cli.options import chosen_placement
    from engram_cli.output import note, print_json
    from runtime.run import Run
    from runtime.serve.generator import Generator
    from runtime.serve.sampler import Sampling

    where = chosen_placement(placement, offload)
    generator = Generator.load(Run(run), where)
    sampling = Sampling(max_tokens, temperature, top_p, seed)
    begin, marks, pieces = time.perf_counter(), [], []
    if not json:
        sys.stdout.write(prompt)
    for piece, count in generator.text(generator.encode(checked_text(prompt)), sampling):
        pieces.append(piece)
        marks.append((time.perf_counter(), count))
        if not json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    tokens = sum(count for _, count in marks)
    (first, first_count), (last, _) = marks[0], marks[-1]
    speed = (tokens - first_count) / (last - first) if last > first else 0.0
    if json:
        print_json(
            {
                "prompt": prompt,
                "text": "".join(pieces),
                "tokens": tokens,
                "placement": where if generator.lookup else None,
                "first_token_sec": first - begin,
                "tokens_per_sec": speed,
            }
        )
        return
    print()
    tables = f"tables on {where}" if generator.lookup else "trained without memory: no tables to place"
    note(f"{tokens} tokens, {speed:,.0f} tokens/s after the first, {tables}")
