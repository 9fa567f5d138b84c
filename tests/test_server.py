"""A real server in its own process, with its tables offloaded, asked by a real client."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from runtime.run import Run
from tests.commands import document, engram_process


@pytest.fixture(scope="module")
def server(trained_run: Run) -> Iterator[subprocess.Popen[str]]:
    with engram_process("serve", "--offload", "--port", 0, "--run", trained_run.folder) as process:
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def client(server: subprocess.Popen[str]) -> Iterator[httpx.Client]:
    assert server.stderr is not None
    line = server.stderr.readline()
    assert "tables on disk" in line
    address = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert address is not None
    with httpx.Client(base_url=address.group(), timeout=30) as client:
        yield client


def complete(client: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"model": "run", "prompt": "def parse(", "max_tokens": 12, "temperature": 0} | changes
    return client.post("/v1/completions", json=body)


def test_health_and_models(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["run"]


def test_a_completion_and_its_usage(client: httpx.Client, trained_run: Run) -> None:
    answer = complete(client).json()
    choice = answer["choices"][0]
    prompt_tokens = len(trained_run.tokenizer().encode("def parse(").ids)
    assert answer["object"] == "text_completion"
    assert choice["finish_reason"] == "length"
    assert choice["text"]
    assert answer["usage"] == {"prompt_tokens": prompt_tokens, "completion_tokens": 12, "total_tokens": prompt_tokens + 12}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_the_stream_is_the_completion_in_pieces(client: httpx.Client) -> None:
    body = {"model": "run", "prompt": "def parse(", "max_tokens": 12, "temperature": 0, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        pieces = events(response)
    assert len(pieces) > 3
    assert pieces[-1]["choices"][0]["finish_reason"] == "length"
    assert "".join(p["choices"][0]["text"] for p in pieces) == complete(client).json()["choices"][0]["text"]


def test_prompts_as_ids_and_as_lists(client: httpx.Client, trained_run: Run) -> None:
    ids = trained_run.tokenizer().encode("def parse(").ids
    expected = complete(client).json()["choices"][0]["text"]
    assert complete(client, prompt=ids).json()["choices"][0]["text"] == expected
    both = complete(client, prompt=["import os", "def parse("]).json()["choices"]
    assert [c["index"] for c in both] == [0, 1]
    assert both[1]["text"] == expected
    assert complete(client, prompt=[ids]).json()["choices"][0]["text"] == expected


def test_requests_at_the_same_time_get_the_answers_they_get_alone(client: httpx.Client) -> None:
    prompts = ["def a(", "class B", "import c", "return d", "with e", "for f"]
    alone = [complete(client, prompt=p).json()["choices"][0]["text"] for p in prompts]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda p: complete(client, prompt=p).json()["choices"][0]["text"], prompts))
    assert together == alone


def test_a_client_that_leaves_does_not_block_the_next(client: httpx.Client) -> None:
    body = {"model": "run", "prompt": "x", "max_tokens": 2000, "temperature": 1, "stream": True}
    for _ in range(5):
        with client.stream("POST", "/v1/completions", json=body) as response:
            next(response.iter_lines())
        assert complete(client).status_code == 200


@pytest.mark.parametrize("field", ["temperature", "top_p", "min_p", "repetition_penalty"])
@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_numbers_that_are_none_are_refused(client: httpx.Client, field: str, value: str) -> None:
    body = f'{{"model": "run", "prompt": "x", "{field}": {value}}}'
    response = client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, field)


def test_penalty_and_min_p_are_those_of_generate(client: httpx.Client, trained_run: Run) -> None:
    """Greedy with the penalty; with a min-p of 1 sampling is greedy whatever the temperature."""
    options = ("--max-tokens", 12, "--repetition-penalty", 1.5, "--run", trained_run.folder)
    expected = document("generate", "def parse(", *options)["text"]
    assert complete(client, repetition_penalty=1.5).json()["choices"][0]["text"] == expected
    assert expected != complete(client).json()["choices"][0]["text"]
    assert (
        complete(client, min_p=1, temperature=2).json()["choices"][0]["text"] == complete(client).json()["choices"][0]["text"]
    )


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"model": "gpt"}, 404, "model"),
        ({"max_tokens": -1}, 400, "max_tokens"),
        ({"max_tokens": "many"}, 400, "max_tokens"),
        ({"max_tokens": 4096}, 400, "prompt"),
        ({"temperature": 9}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"min_p": 1.5}, 400, "min_p"),
        ({"repetition_penalty": 0}, 400, "repetition_penalty"),
        ({"n": 2}, 400, "n"),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": [1, 10_000_000]}, 400, "prompt"),
        ({"prompt": [-1]}, 400, "prompt"),
        ({"logprobs": 5}, 400, "logprobs"),
        ({"stop": 3}, 400, "stop"),
        ({"seed": 1 << 70}, 400, "seed"),
    ],
)
def test_what_cannot_be_served_is_refused_in_openais_shape(
    client: httpx.Client, changes: dict[str, Any], status: int, param: str
) -> None:
    response = complete(client, **changes)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(param)
    assert error["message"]


def test_a_prompt_that_is_no_text(client: httpx.Client) -> None:
    body = b'{"model": "run", "prompt": "\\ud800"}'
    response = client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")


def test_broken_bodies_unknown_paths_and_methods(client: httpx.Client) -> None:
    broken = client.post("/v1/completions", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")
    assert client.post("/v1/completions", content=b"").status_code == 400
    assert client.get("/v1/nothing").status_code == 404
    assert client.get("/v1/completions").status_code == 405
    assert "error" in client.get("/v1/nothing").json()
    assert complete(client).status_code == 200
