"""A real server in its own process, with its tables offloaded, asked by a real client."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from runtime.run import Run
from runtime.serve.run_generator import RunGenerator
from runtime.serve.server import build_app
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
    body = {"model": "run", "prompt": "def parse(", "max_tokens": 60, "temperature": 0, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        pieces = events(response)
    assert len(pieces) > 1, "the first token is sent at once"
    assert pieces[-1]["choices"][0]["finish_reason"] == "length"
    assert "".join(p["choices"][0]["text"] for p in pieces) == complete(client, max_tokens=60).json()["choices"][0]["text"]


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
        ({"n": 0}, 400, "n"),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": [1, 10_000_000]}, 400, "prompt"),
        ({"prompt": [-1]}, 400, "prompt"),
        ({"logprobs": 50}, 400, "logprobs"),
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


def test_nulls_and_neutral_values_are_as_nothing(client: httpx.Client) -> None:
    neutral = {"n": 1, "best_of": 1, "echo": False, "presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {}}
    nulls = dict.fromkeys(
        ["top_p", "stop", "seed", "logprobs", "suffix", "stream", "stream_options", "user", "n", "logit_bias"]
    )
    expected = complete(client).json()["choices"]
    assert complete(client, **neutral).json()["choices"] == expected
    assert complete(client, **nulls).json()["choices"] == expected


def test_several_choices(client: httpx.Client) -> None:
    """Each is what its own seed gives; the best of several is the likeliest."""
    asked = {"temperature": 1.2, "logprobs": 0, "prompt": ["def a", "x ="]}
    single = [complete(client, **asked, seed=seed).json()["choices"] for seed in (5, 6, 7)]
    together = complete(client, **asked, seed=5, n=3).json()
    assert [choice["text"] for choice in together["choices"]] == [single[s][p]["text"] for p in range(2) for s in range(3)]
    assert [choice["index"] for choice in together["choices"]] == list(range(6))
    assert together["usage"]["completion_tokens"] == sum(len(c["logprobs"]["tokens"]) for c in together["choices"])
    best = complete(client, **asked, seed=5, n=1, best_of=3).json()["choices"]
    for prompt in range(2):
        ranked = max((single[s][prompt] for s in range(3)), key=lambda c: sum(c["logprobs"]["token_logprobs"]))
        assert best[prompt]["text"] == ranked["text"]
    assert best[0]["logprobs"]["top_logprobs"][0] == {}


def test_echo_with_logprobs_scores_a_text(client: httpx.Client, trained_run: Run) -> None:
    """As evaluation harnesses ask: the likelihoods of the prompt's own tokens, and nothing generated."""
    ids = trained_run.tokenizer().encode("def parse(self):").ids
    answer = complete(client, prompt=ids, echo=True, logprobs=2, max_tokens=0).json()
    choice = answer["choices"][0]
    logprobs = choice["logprobs"]
    assert (choice["text"], choice["finish_reason"]) == ("def parse(self):", "length")
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["token_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    assert all(len(top) == 2 for top in logprobs["top_logprobs"][1:])
    assert logprobs["text_offset"] == [len("".join(logprobs["tokens"][:n])) for n in range(len(ids))]
    assert answer["usage"]["completion_tokens"] == 0
    longer = complete(client, prompt=ids, echo=True, logprobs=2, max_tokens=3).json()["choices"][0]["logprobs"]
    assert longer["token_logprobs"][: len(ids)] == pytest.approx(logprobs["token_logprobs"][: len(ids)])
    assert len(longer["tokens"]) == len(ids) + 3


def test_a_stream_has_its_usage_and_its_echo(client: httpx.Client) -> None:
    whole = complete(client, echo=True, logprobs=1, n=2, seed=3, temperature=1).json()
    asked = {"echo": True, "logprobs": 1, "n": 2, "seed": 3, "temperature": 1, "stream": True}
    body = {"model": "run", "prompt": "def parse(", "max_tokens": 12, **asked, "stream_options": {"include_usage": True}}
    with client.stream("POST", "/v1/completions", json=body) as response:
        pieces = events(response)
    assert pieces[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        own = [piece["choices"][0] for piece in pieces[:-1] if piece["choices"][0]["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in own) == choice["text"]
        assert [v for piece in own for v in piece["logprobs"]["token_logprobs"]] == choice["logprobs"]["token_logprobs"]
        assert [v for piece in own for v in piece["logprobs"]["text_offset"]] == choice["logprobs"]["text_offset"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_leave_free_their_place(client: httpx.Client, stream: bool) -> None:
    """Whole requests too: many that leave at once must not keep the server from the next."""
    body = {"model": "run", "prompt": "x", "max_tokens": 4000, "temperature": 1, "n": 8, "stream": stream}
    for _ in range(10):
        if stream:
            with client.stream("POST", "/v1/completions", json=body) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/completions", json=body, timeout=0.05)
    assert client.get("/health", timeout=2).status_code == 200
    assert complete(client).status_code == 200
    began = time.monotonic()
    assert complete(client).status_code == 200
    assert time.monotonic() - began < 2


def test_a_body_beyond_the_limit_is_refused_unread(client: httpx.Client) -> None:
    large = client.post("/v1/completions", json={"model": "run", "prompt": "x" * (5 << 20)})
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")

    def chunks() -> Iterator[bytes]:
        yield b'{"model": "run", "prompt": "'
        for _ in range(40):
            yield b"x" * (1 << 17)

    streamed = client.post("/v1/completions", content=chunks(), headers={"content-type": "application/json"})
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (413, "too_large")
    long = client.post("/v1/completions", json={"model": "run", "prompt": "x" * 100_000})
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    "changes", [{"temperature": 1e-38}, {"temperature": 1, "top_p": 1e-300}, {"seed": -(2**63)}, {"top_k": -1}, {"min_p": 1}]
)
def test_extremes_are_served(client: httpx.Client, changes: dict[str, Any]) -> None:
    assert complete(client, **changes).status_code == 200


def test_what_is_counted(client: httpx.Client) -> None:
    def counted() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    before = counted()
    answer = complete(client, max_tokens=7, temperature=0, logit_bias={"0": -100}).json()
    complete(client, model="another")
    after = counted()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["engram_generated_tokens_total"] == 7
    assert grown["engram_prompt_tokens_total"] == answer["usage"]["prompt_tokens"]
    assert grown["engram_first_token_seconds_count"] == 1
    assert grown["engram_between_tokens_seconds_count"] == 6
    assert grown['engram_requests_total{status="404"}'] == 1
    assert (after["engram_running"], after["engram_waiting"], after["engram_mismatches"]) == (0, 0, 0)


def test_ready_until_something_is_wrong(trained_run: Run) -> None:
    generator = RunGenerator.load(trained_run, "disk")
    with TestClient(build_app(generator, "run", verify_every=1)) as client:
        body = {"model": "run", "prompt": "def parse(", "max_tokens": 5, "temperature": 0}
        assert client.post("/v1/completions", json=body).status_code == 200
        assert client.get("/ready").json() == {"status": "ready"}
        assert generator.lookup is not None
        fetch = generator.lookup.placement.fetch
        shifted = lambda rows: fetch({layer: (numbers + 1) % 7 for layer, numbers in rows.items()})  # noqa: E731
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(generator.lookup.placement), "fetch", lambda _, rows: shifted(rows))
            client.post("/v1/completions", json=body)
        answer = client.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
        assert "not those of the rule" in answer.json()["reason"]
        assert client.get("/health").status_code == 200
