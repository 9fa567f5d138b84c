"""Tables that change under a server: it says so and stays, and nothing wrong is ever answered."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from runtime.run import Run
from tests.commands import engram_process

PROMPTS = [f"def number_{i}(value, other):\n    return" for i in range(6)]


@pytest.fixture
def run(trained_run: Run, tmp_path: Path) -> Run:
    """A copy that may be damaged."""
    shutil.copytree(trained_run.folder, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def client(run: Run) -> Iterator[httpx.Client]:
    """Of a server whose memory for rows is so small that every step reads files."""
    with engram_process("serve", "--placement", "disk", "--cache", "2KiB", "--port", 0, "--run", run.folder) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
            assert address is not None
            with httpx.Client(base_url=address.group(), timeout=30) as client:
                yield client
            assert process.poll() is None, "the server stays up"
        finally:
            process.kill()


def complete(client: httpx.Client, prompt: str, **changes: Any) -> httpx.Response:
    body = {"model": "run", "prompt": prompt, "max_tokens": 8, "temperature": 0} | changes
    return client.post("/v1/completions", json=body)


def shards(run: Run) -> list[Path]:
    return sorted(run.tables_path.glob("layers/*/c/*/0"))


def cut(path: Path) -> None:
    os.truncate(path, 4096)


def zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


def nan(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(np.full(path.stat().st_size // 4, np.nan, np.float32).tobytes())


@pytest.mark.parametrize("change", [cut, zeros, nan])
def test_changed_shards(client: httpx.Client, run: Run, change: Callable[[Path], None]) -> None:
    before = complete(client, PROMPTS[0])
    assert before.status_code == 200
    page = {"accept": "application/json"}
    assert client.get("/text", params={"text": "def f"}, headers=page).status_code == 200
    for shard in shards(run):
        change(shard)
    for prompt in PROMPTS:
        answer = complete(client, prompt)
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert re.search(r"tables\.zarr/.* has changed since it was opened", error["message"])
        assert (error["type"], error["code"]) == ("server_error", "unavailable")
    lines = [*complete(client, PROMPTS[1], stream=True).iter_lines()]
    assert json.loads(lines[0].removeprefix("data: "))["error"]["code"] == "unavailable"
    assert "[DONE]" not in "".join(lines)
    assert "has changed since" in client.get("/text", params={"text": "def g"}, headers=page).json()["error"]["message"]
    assert client.get("/health").status_code == 200
    ready = client.get("/ready")
    assert ready.status_code == 503
    assert "has changed since it was opened" in ready.json()["reason"]


def test_removed_tables_are_still_served(client: httpx.Client, run: Run) -> None:
    """A training that ends puts new tables in place of those that are served, whose files stay open."""
    before = [complete(client, prompt).json()["choices"] for prompt in PROMPTS]
    shutil.rmtree(run.tables_path)
    assert [complete(client, prompt).json()["choices"] for prompt in PROMPTS] == before
    assert client.get("/ready").status_code == 200


def test_rows_are_counted(client: httpx.Client) -> None:
    answer = complete(client, PROMPTS[0]).json()
    found = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#"))
    counts = {name: float(value) for name, value in found.items() if name.startswith("engram_rows")}
    layers = {name[name.index("{") :] for name in counts}
    assert layers
    for layer in layers:
        asked, unique, hit, read, waited, size = (
            counts[f"engram_rows_{name}_total{layer}"] for name in ("asked", "unique", "hit", "read", "waited", "bytes_read")
        )
        assert asked % (answer["usage"]["total_tokens"] - 1) == 0, "every position but the last reads its columns"
        assert hit + read + waited == unique <= asked
        assert size % (read + waited) == 0
