"""Bodies that do not arrive and completions that take too long are ended, and others go on."""

import asyncio
import json
from math import inf
from typing import Any

import pytest

from hashing.base.errors import EngramError
from runtime.run import Run
from runtime.serve import service as service_module
from runtime.serve.body_limit import BodyLimit
from runtime.serve.completion import Completion
from runtime.serve.metrics import Metrics, TokenClock
from runtime.serve.run_generator import RunGenerator
from runtime.serve.sampler import Sampling
from runtime.serve.service import Service


def test_a_body_that_does_not_arrive() -> None:
    sent: list[dict[str, Any]] = []

    async def app(_: Any, receive: Any, __: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    async def receive() -> dict[str, Any]:
        if not sent:
            sent.append({})
            return {"type": "http.request", "body": b"{", "more_body": True}
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": []}
    asyncio.run(BodyLimit(app, 100, body_sec=0.05)(scope, receive, send))  # type: ignore[arg-type]
    assert sent[1]["status"] == 408
    assert json.loads(sent[2]["body"])["error"]["code"] == "too_slow"


def test_a_completion_that_takes_too_long_ends_and_leaves(trained_run: Run) -> None:
    generator = RunGenerator.load(trained_run, "disk")
    service = Service(generator.engine(), longest_sec=0.3)
    clock = TokenClock(Metrics())
    long, short = (Completion.of([5, 6], Sampling(max_tokens=count), generator.tokenizer) for count in (10**6, 2))
    service.engine.end_ids = frozenset()  # the long one does not end by itself

    async def run() -> None:
        work = asyncio.create_task(service.run())
        async with service.joined({long: clock}, streams=False) as inbox:
            with pytest.raises(EngramError, match=r"may take 0\.3 seconds"):
                await inbox.take()
        async with service.joined({short: clock}, streams=False) as inbox:
            assert [piece.finish_reason for _, piece in await inbox.take()] == ["length"]
        assert service.engine.is_idle
        assert service.failure is None
        work.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("short_sec", [0.0, inf], ids=["in a thread", "in the loop"])
def test_a_stream_is_not_written_to_at_every_step(trained_run: Run, monkeypatch: pytest.MonkeyPatch, short_sec: float) -> None:
    monkeypatch.setattr(service_module, "SHORT_SEC", short_sec)
    monkeypatch.setattr(service_module, "SENT_EVERY_SEC", 1000.0)
    generator = RunGenerator.load(trained_run, "disk")
    service, completion = Service(generator.engine()), Completion.of([5, 6], Sampling(max_tokens=40), generator.tokenizer)
    service.engine.end_ids = frozenset()

    async def run() -> list[int]:
        work, found = asyncio.create_task(service.run()), []
        async with service.joined({completion: TokenClock(Metrics())}, streams=True) as inbox:
            while sum(found) < 40:
                found += [len(piece.token_ids) for _, piece in await inbox.take()]
        work.cancel()
        return found

    assert asyncio.run(run()) == [1, 39]
