"""Texts asked of a server over HTTP, many at a time, by a client that does as little as it can.

All texts are greedy, and ways take turns. Connections are open before the time begins, as those of a client that asks again.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from hashing.base.errors import EngramError
from runtime.serve.run_generator import RunGenerator
from runtime.serve.sampler import Sampling

HOST = "127.0.0.1"
OPTIONS: dict[str, dict[str, object]] = {
    "streamed": {"stream": True, "stream_options": {"include_usage": True}},
    "whole": {"stream": False},
}
PROMPT = "def __init__(self, number_{}"


@contextmanager
def served(run: Path) -> Iterator[tuple[int, int]]:
    """A server of the run, with its tables on disk, for the length of the block; gives its port and its process."""
    command = [sys.executable, "-m", "engram_cli.main", "serve", "--placement", "disk", "--port", "0", "--run", str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            if not (port := re.search(r":(\d+)$", line.strip())):
                raise EngramError(f"the server did not begin: {line.strip()}")
            yield int(port[1]), process.pid
        finally:
            process.terminate()


def turns(
    generator: RunGenerator, model: str, port: int, streams: Sequence[int], tokens: int, rounds: int
) -> Iterator[dict[tuple[str, int], float]]:
    """For each turn tokens a second, by way and number of texts at a time. The first is one more, to warm up."""
    for turn in range(rounds + 1):
        ways: dict[tuple[str, int], Callable[[], float]] = {
            ("generate", 1): lambda turn=turn: _generated(generator, PROMPT.format(turn), tokens)  # type: ignore[misc]
        }
        for count in streams:
            for name, own in OPTIONS.items():
                asked = {"model": model, "max_tokens": tokens, "temperature": 0, **own}
                bodies = [asked | {"prompt": PROMPT.format(f"{turn}_{number}")} for number in range(count)]
                ways[name, count] = lambda bodies=bodies: asyncio.run(_asked_together(port, bodies))  # type: ignore[misc]
        yield {way: tokens_per_sec() for way, tokens_per_sec in ways.items()}


def _generated(generator: RunGenerator, prompt: str, tokens: int) -> float:
    began = perf_counter()
    made = sum(1 for _ in generator.token_ids(generator.encode(prompt), Sampling(tokens)))
    return made / (perf_counter() - began)


async def _asked_together(port: int, bodies: Sequence[dict[str, object]]) -> float:
    connections = [await asyncio.open_connection(HOST, port) for _ in bodies]
    began = perf_counter()
    made = await asyncio.gather(*(_asked(*each, body) for each, body in zip(connections, bodies, strict=True)))
    return sum(made) / (perf_counter() - began)


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, object]) -> int:
    """How many tokens were generated."""
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    )
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + content)
    answer = await reader.read()
    writer.close()
    if not (usage := re.search(rb'"completion_tokens": ?(\d+)', answer)):
        raise EngramError(f"the server answered {answer[:200]!r}")
    return int(usage[1])
