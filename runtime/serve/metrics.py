"""Metrics: what a server counts and times, in Prometheus' form.

Waiting for the first token includes the queue and the prompt. The time between tokens is that of one client's text.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.serve.completion import Piece
from table.store.row_cache import RowCache

ROW_COUNTS = {
    "rows_asked": "Rows that positions read.",
    "rows_unique": "Rows that a step read, each once.",
    "rows_hit": "Rows that were in the cache.",
    "rows_read": "Rows of files whose page was in memory.",
    "rows_waited": "Rows that the drive was asked for.",
    "rows_bytes_read": "Bytes of rows that were not in the cache.",
    "rows_wait_sec": "Seconds that were spent on rows of the drive.",
}
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("engram_requests", "Answers, by their status.", ["status"], registry=registry)
        self.prompt_tokens = Counter("engram_prompt_tokens", "Tokens of prompts.", registry=registry)
        self.generated_tokens = Counter("engram_generated_tokens", "Tokens that were generated.", registry=registry)
        self.first_token = Histogram(
            "engram_first_token_seconds", "From the request to its first token.", buckets=SECONDS, registry=registry
        )
        self.between_tokens = Histogram(
            "engram_between_tokens_seconds", "From one token of a text to the next.", buckets=SECONDS, registry=registry
        )

    def gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        """A number that is asked for when it is read."""
        Gauge(f"engram_{name}", about, registry=self._registry).set_function(value)

    def rows(self, caches: Mapping[int, RowCache]) -> None:
        """What is asked of tables on disk, by layer; read when it is asked for."""
        self._registry.register(RowMetrics(caches))

    def text(self) -> bytes:
        return generate_latest(self._registry)


@dataclass(frozen=True, slots=True, eq=False)
class RowMetrics(Collector):
    caches: Mapping[int, RowCache]

    def collect(self) -> Iterator[CounterMetricFamily]:
        counts = {layer: cache.counts() for layer, cache in self.caches.items()}
        for name, about in ROW_COUNTS.items():
            family = CounterMetricFamily(f"engram_{name}", about, labels=["layer"])
            for layer, found in counts.items():
                family.add_metric([str(layer)], getattr(found, name.removeprefix("rows_")))
            yield family


class Counted:
    """An application whose answers are counted."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)


class TokenClock:
    """Times the tokens of one text."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics, self._last, self._is_first = metrics, time.perf_counter(), True

    def tick(self, piece: Piece, now: float) -> None:
        if not piece.token_ids:
            return
        (self._metrics.first_token if self._is_first else self._metrics.between_tokens).observe(now - self._last)
        self._metrics.generated_tokens.inc()
        self._last, self._is_first = now, False
