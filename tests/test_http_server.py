"""A server that is told to end, and one whose clients do not behave."""

import gc
import json
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from runtime.run import Run
from runtime.serve.http_server import HttpServer
from tests.commands import engram_process

NEVER_ENDS = {"0": -100}  # the end of a text is its least likely token
Served = tuple[subprocess.Popen[str], httpx.Client]


@pytest.fixture
def served(trained_run: Run, request: pytest.FixtureRequest) -> Iterator[Served]:
    """A server; with a parameter, one that may have so many files open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (getattr(request, "param", before[0]), before[1]))
    server = engram_process("serve", "--offload", "--port", 0, "--run", trained_run.folder)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with server as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
            assert address is not None
            with httpx.Client(base_url=address.group(), timeout=30) as client:
                yield process, client
        finally:
            process.kill()


def asked(**changes: Any) -> dict[str, Any]:
    return {
        "model": "run",
        "prompt": "def parse(",
        "max_tokens": 1500,
        "temperature": 1,
        "seed": 1,
        "logit_bias": NEVER_ENDS,
        "stream": True,
    } | changes


def refuses(client: httpx.Client) -> bool:
    try:
        httpx.get(f"{client.base_url}/health", timeout=2)
    except httpx.TransportError:
        return True
    return False


def test_sigterm_finishes_what_runs_and_refuses_what_comes(served: Served) -> None:
    process, client = served
    with client.stream("POST", "/v1/completions", json=asked()) as response:
        lines = response.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not refuses(client):
            assert time.monotonic() < deadline
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert process.wait(10) in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert process.stderr is not None
    assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_second_signal_ends_it_at_once(served: Served, number: signal.Signals) -> None:
    process, client = served
    lines: list[Iterator[str]] = []
    with ExitStack() as streams:
        for _ in range(8):
            response = streams.enter_context(client.stream("POST", "/v1/completions", json=asked(max_tokens=4000)))
            lines.append(response.iter_lines())  # kept, since one that is dropped closes its connection
            next(lines[-1])
        process.send_signal(number)
        time.sleep(0.3)
        assert process.poll() is None, "it finishes what runs"
        process.send_signal(number)
        process.wait(5)
    assert process.stderr is not None
    said = process.stderr.read()
    assert "Traceback" not in said
    assert len(said) < 500


@pytest.mark.parametrize("served", [128], indirect=True)
def test_connections_that_ask_nothing_keep_nobody_out(served: Served) -> None:
    process, client = served
    with ExitStack() as connections:
        for _ in range(200):
            connection = connections.enter_context(socket.create_connection((client.base_url.host, client.base_url.port or 0)))
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-")
        for _ in range(5):
            assert httpx.get(f"{client.base_url}/health", timeout=5).status_code == 200
        answer = httpx.post(f"{client.base_url}/v1/completions", json=asked(max_tokens=4, stream=False), timeout=20)
        assert answer.json()["usage"]["completion_tokens"] == 4
    process.send_signal(signal.SIGTERM)
    process.wait(15)
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_what_is_loaded_is_not_looked_through_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = []
    monkeypatch.setattr(HttpServer, "run", lambda _, sockets: frozen.append((len(sockets), gc.get_freeze_count())))
    with socket.socket() as listener:
        HttpServer(FastAPI()).serve_on(listener)
    gc.unfreeze()
    assert frozen[0][0] == 1
    assert frozen[0][1] > 10_000
