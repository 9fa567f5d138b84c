"""`engram generate`: text from a trained run."""

import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import (
    DEFAULT_RUN,
    BestCheckpoint,
    CacheSize,
    Json,
    ModelFolder,
    ModelStore,
    Offload,
    PlacementOption,
    RunDir,
    checked_text,
)

if TYPE_CHECKING:
    from runtime.serve.generator import Generator
    from runtime.serve.sampler import Sampling


def generate(
    prompt: Annotated[str, typer.Argument(help="What the text begins with.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="At most so many new tokens.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token every time.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Sample among the likeliest tokens that sum to this.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Sample among tokens at least so many times as likely as the likeliest.")] = 0.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1 makes tokens that were seen less likely, in the prompt too; 1 is off.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampling.")] = None,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="Suppress the memory, which is not a model trained without.")
    ] = False,
    best: BestCheckpoint = False,
    offload: Offload = False,
    placement: PlacementOption = None,
    cache: CacheSize = "",
    model: ModelFolder = None,
    store: ModelStore = None,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Continue a text.

    Example: engram generate "def __init__(self"

    Example: engram generate "import " --temperature 0.8 --min-p 0.05 --offload --json

    Example: engram generate "def " --no-memory --repetition-penalty 1.2

    Example: engram generate "The capital of" --model Qwen3.8-Flash-Next --placement disk --cache 2GiB
    """
    from engram_cli.generators import has_memory, load_generator
    from engram_cli.options import chosen_cache, chosen_placement
    from engram_cli.output import note, print_json
    from hashing.base.errors import UsageError
    from runtime.serve.sampler import Sampling

    if no_memory and (offload or placement is not None):
        raise UsageError(
            "--no-memory reads no tables, but --offload or --placement says where they are", hint="leave one of them out"
        )
    sampling = Sampling(max_tokens, temperature, top_p, seed, (), repetition_penalty, min_p)
    prompt, where = checked_text(prompt), chosen_placement(placement, offload or (model is not None and placement is None))
    generator = load_generator(run, model, store, where, chosen_cache(cache, where), best, not no_memory)
    if not json:
        sys.stdout.write(prompt)
    made = _generated(generator, prompt, sampling, show=not json)
    suppressed = no_memory and has_memory(generator)
    if json:
        placed = {"placement": where if generator.placement else None, "memory_suppressed": suppressed}
        print_json({"prompt": prompt, **asdict(made), **placed})
        return
    print()
    tables = f"tables on {where}" if generator.placement else "memory suppressed" if suppressed else "trained without memory"
    note(f"{made.tokens} tokens, {made.tokens_per_sec:,.0f} tokens/s after the first, {tables}")


@dataclass(frozen=True, slots=True)
class Generated:
    text: str
    tokens: int
    first_token_sec: float
    tokens_per_sec: float  # after the first


def _generated(generator: "Generator", prompt: str, sampling: "Sampling", show: bool) -> Generated:
    """Generates a text, and shows it piece by piece if asked to."""
    begin, marks, pieces = time.perf_counter(), [], []
    for piece, count in generator.text(generator.encode(prompt), sampling):
        pieces.append(piece)
        marks.append((time.perf_counter(), count))
        if show:
            sys.stdout.write(piece)
            sys.stdout.flush()
    tokens = sum(count for _, count in marks)
    (first, first_count), (last, _) = marks[0], marks[-1]
    speed = (tokens - first_count) / (last - first) if last > first else 0.0
    return Generated("".join(pieces), tokens, first - begin, speed)
