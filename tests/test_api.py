"""The API as others use it: OpenAI's own client, requests made up from the server's own description, a key."""

import http.client
import json
import re
import subprocess
from collections.abc import Iterator

import openai
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

from runtime.run import Run
from runtime.serve.run_generator import RunGenerator
from runtime.serve.server import build_app
from tests.commands import engram_process

EXAMPLES = 40  # of each operation


@pytest.fixture(scope="module")
def address(trained_run: Run) -> Iterator[str]:
    with engram_process("serve", "--offload", "--verify", 1, "--port", 0, "--run", trained_run.folder) as process:
        try:
            yield address_of(process)
        finally:
            process.kill()


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
    assert found is not None
    return found.group()


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_s_client_completes(client: openai.OpenAI) -> None:
    asked = {"model": "run", "prompt": "def parse(", "max_tokens": 9, "temperature": 0.0}
    whole = client.completions.create(**asked, logprobs=2, echo=True)  # type: ignore[call-overload]
    assert whole.choices[0].text.startswith("def parse(")
    assert whole.usage.completion_tokens == len(whole.choices[0].logprobs.tokens) - whole.usage.prompt_tokens
    pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))  # type: ignore[call-overload]
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == whole.choices[0].text[len("def parse(") :]
    assert pieces[-1].usage == whole.usage
    assert [model.id for model in client.models.list()] == ["run"]


def test_openai_s_client_knows_the_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError, match="at most 4096 tokens"):
        client.completions.create(model="run", prompt="x", max_tokens=10_000)
    with pytest.raises(openai.BadRequestError, match="has no chat template"):
        client.chat.completions.create(model="run", messages=[{"role": "user", "content": "x"}])


def test_made_up_requests_are_never_the_server_s_fault(address: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case.method, case.path, case.body, answer.text)
            if answer.status_code >= 400 and case.path.startswith("/v1/") and answer.status_code != 405:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

        check()
    ready = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    ready.request("GET", "/ready")
    assert json.loads(ready.getresponse().read()) == {"status": "ready"}
    ready.close()


def test_a_key(trained_run: Run) -> None:
    app = build_app(RunGenerator.load(trained_run, "disk"), "run", api_key="secret")
    with TestClient(app) as client:
        for path, status in (("/v1/models", 401), ("/metrics", 401), ("/health", 200), ("/ready", 200)):
            assert client.get(path).status_code == status
        answer = client.get("/v1/models", headers={"authorization": "Bearer wrong"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert client.get("/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200


def test_a_warning_where_anybody_can_ask(trained_run: Run) -> None:
    with engram_process("serve", "--host", "0.0.0.0", "--port", 0, "--run", trained_run.folder) as process:
        try:
            assert process.stderr is not None
            assert "warning: anybody who can reach 0.0.0.0" in process.stderr.readline()
        finally:
            process.kill()
