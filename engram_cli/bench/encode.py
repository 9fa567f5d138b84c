"""`engram bench encode`: megabytes of text encoded a second, and the memory it takes, beside the tokenizer alone."""

from pathlib import Path
from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, CorpusPaths, Json, RunDir


def bench_encode(
    corpus: CorpusPaths = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each way, of which the fastest counts.")] = 3,
    folder: Annotated[Path, typer.Option(help="Where files are written; removed afterwards.")] = Path("build"),
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Time the encoding of a corpus by the run's tokenizer, and measure its memory, beside the tokenizer on text in memory.

    Example: engram bench encode

    Example: engram bench encode --corpus texts/ --run runs/mine --rounds 1 --json
    """
    from tempfile import TemporaryDirectory

    from engram_cli.bench.encode_speed import measure, peak_bytes
    from engram_cli.options import chosen_corpus
    from engram_cli.output import print_json, print_table
    from hashing.base.cores import CORES
    from runtime.run import Run

    target = Run(run)
    tokenizer, chosen = target.tokenizer(), chosen_corpus(target, corpus, "", "", "")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:
        speed = measure(chosen, tokenizer, Path(name), rounds)
        peak = peak_bytes(chosen, target.tokenizer_path, Path(name))
    ways = {way: round(speed.megabytes_per_sec(way), 3) for way in speed.sec}
    if json:
        print_json(
            {
                "cores": CORES,
                "documents": speed.documents,
                "text_bytes": speed.text_bytes,
                "tokens": speed.tokens,
                "megabytes_per_sec": ways,
                "times_tokenizer": round(speed.times_tokenizer, 3),
                "peak_bytes": peak,
            }
        )
        return
    title = f"{speed.text_bytes / 1e6:,.1f} MB of text, {speed.documents:,} documents, {speed.tokens:,} tokens, {CORES} cores"
    lines = [
        ("the tokenizer alone, text in memory", ways["tokenizer"], None, None),
        ("engram, from files to files", ways["engram"], speed.times_tokenizer, peak / 1e6),
    ]
    print_table(title, ("way", "MB/s", "× the tokenizer's", "memory MB"), lines)
