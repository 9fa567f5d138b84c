"""Metrics: what a server counts and times, in Prometheus' form.

Waiting for the first token includes the queue and the prompt. The time between tokens is that of one client's text.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
        self.first_token = Times("engram_first_token_seconds", "From the request to its first token.")
        self.between_tokens = Times("engram_between_tokens_seconds", "From one token of a text to the next.")
        registry.register(self.first_token)
        registry.register(self.between_tokens)
        registry.register(TokenMetrics((self.first_token, self.between_tokens)))

    def gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        """A number that is asked for when it is read."""
        Gauge(f"engram_{name}", about, registry=self._registry).set_function(value)

    def rows(self, caches: Mapping[int, RowCache]) -> None:
        """What is asked of tables on disk, by layer; read when it is asked for."""
        self._registry.register(RowMetrics(caches))

    def text(self) -> bytes:
        return generate_latest(self._registry)


@dataclass(slots=True, eq=False)
class Times(Collector):
    """A histogram of times, all taken by one thread: the library's own takes three times as long for each of them."""

    name: str
    about: str
    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))  # by the first of SECONDS that is not less
    total_sec: float = 0.0

    def add(self, sec: float) -> None:
        self.counts[bisect_left(SECONDS, sec)] += 1
        self.total_sec += sec

    def collect(self) -> Iterator[HistogramMetricFamily]:
        bounds = [*map(str, SECONDS), "+Inf"]
        yield HistogramMetricFamily(
            self.name, self.about, list(zip(bounds, accumulate(self.counts), strict=True)), sum_value=self.total_sec
        )


@dataclass(frozen=True, slots=True, eq=False)
class TokenMetrics(Collector):
    """Every token that is generated is timed, in one of several histograms."""

    times: Sequence[Times]

    def collect(self) -> Iterator[CounterMetricFamily]:
        count = sum(sum(each.counts) for each in self.times)
        yield CounterMetricFamily("engram_generated_tokens", "Tokens that were generated.", count)


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
        self._last, self._times, self._following = time.perf_counter(), metrics.first_token, metrics.between_tokens

    def tick(self, now: float) -> None:
        """A token is there."""
        self._times.add(now - self._last)
        self._last, self._times = now, self._following
