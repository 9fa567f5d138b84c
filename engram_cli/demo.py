"""`engram demo`: the whole loop on this machine, each step by the command that a person would type."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

PROMPT = "def __init__(self"
PHRASE = "def __init__"
SAMPLE_TOKENS = 128


def demo(
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, instead of the preset's.")] = None,
    run: Annotated[Path, typer.Option("--run", help="Where everything is put; replaced if it is there.")] = Path("runs/demo"),
) -> None:
    """Build a vocabulary, train, generate, serve and look inside, then sum up.

    Example: engram demo

    Example: engram demo --steps 50 --run runs/quick
    """
    vocab = _engram("build-vocab", "--force", run=run)
    trained = _engram("train", "--force", *(["--steps", str(steps)] if steps else []), run=run)
    generated = {
        place: _engram("generate", PROMPT, "--max-tokens", str(SAMPLE_TOKENS), "--placement", place, run=run)
        for place in ("device", "disk")
    }
    with _served(run) as url:
        answered = _complete(url, run.resolve().name)
    view = _engram("inspect", "ngram", PHRASE, run=run)
    _summarise(run, vocab, trained, generated, answered, view)


def _engram(*arguments: str, run: Path) -> dict[str, Any]:
    """Runs one command in its own process and returns its JSON; what it says on the way goes to the terminal."""
    shown = " ".join(f'"{a}"' if " " in a else a for a in arguments)
    print(f"\n$ engram {shown} --run {run}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "engram_cli.main", *arguments, "--run", str(run), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise typer.Exit(done.returncode)
    return dict(json.loads(done.stdout))


@contextmanager
def _served(run: Path) -> Iterator[str]:
    """The address of a server with the run's tables offloaded, on a free port, for the length of the block."""
    print(f"\n$ engram serve --offload --port 0 --run {run}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "engram_cli.main", "serve", "--offload", "--port", "0", "--run", str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            print(line, end="", file=sys.stderr)
            address = re.search(r"http://\S+", line)
            if address is None:
                raise typer.Exit(server.wait())
            yield address.group()
        finally:
            server.terminate()


def _complete(url: str, model: str) -> dict[str, Any]:
    from urllib.request import Request, urlopen

    body = json.dumps({"model": model, "prompt": PROMPT, "max_tokens": SAMPLE_TOKENS, "temperature": 0}).encode()
    print(f"POST {url}/v1/completions", file=sys.stderr)
    with urlopen(Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"}), timeout=120) as response:
        return dict(json.load(response))


def _summarise(
    run: Path,
    vocab: dict[str, Any],
    trained: dict[str, Any],
    generated: dict[str, dict[str, Any]],
    answered: dict[str, Any],
    view: dict[str, Any],
) -> None:
    from engram_cli.output import byte_text, print_table
    from hashing.base.errors import EngramError
    from table.store.store import TableStore

    resident, offloaded = generated["device"], generated["disk"]
    if not resident["text"] == offloaded["text"] == answered["choices"][0]["text"]:
        raise EngramError("the text from the offloaded tables is not that from the resident ones")
    store = TableStore.open(run / "tables.zarr")
    layer, orders = next(iter(view["layers"].items()))
    order, ngram = max(orders["orders"].items())
    facts = [
        (
            "vocabulary",
            f"{vocab['tokens']:,} tokens → {vocab['canonical']:,} canonical ids ({vocab['reduction_percent']:.1f} % fewer)",
        ),
        ("tables", f"{store.total_rows:,} rows, {byte_text(store.total_bytes)}"),
        (
            "validation, with the memory",
            f"{trained['validation_nats']:.4f} nats/token, {trained['bits_per_byte']:.4f} bits/byte",
        ),
        (
            "validation, memory suppressed",
            f"{trained['suppressed_nats']:.4f} nats/token, {trained['suppressed_bits_per_byte']:.4f} bits/byte",
        ),
        ("tables resident", f"{resident['tokens_per_sec']:,.0f} tokens/s"),
        ("tables on disk", f"{offloaded['tokens_per_sec']:,.0f} tokens/s, the same text, also over HTTP"),
        (f"{order}-gram {' · '.join(map(repr, ngram['ngram']))}", f"{ngram['corpus_count']:,} times in the corpus"),
        (f"its rows in layer {layer}", ", ".join(f"{row:,}" for row in ngram["rows"])),
        ("their norms", ", ".join(f"{norm:.3f}" for norm in ngram["row_norms"])),
        ("everything lies in", str(run)),
        ("go on with", f'engram inspect ngram "{PHRASE}" --run {run}'),
    ]
    print()
    print_table("Engram, the whole loop", ("", ""), facts, left=2)
    print(f"\nSample:\n{PROMPT}{resident['text']}")
