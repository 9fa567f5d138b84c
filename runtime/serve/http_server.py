"""HttpServer: uvicorn with bounds that it lacks, on connections and on the time that a request's head may take.

A client that opens connections and never sends a request would otherwise hold a file descriptor for each of them, until there
are none left for anybody.
"""

import asyncio
import gc
import logging
import resource
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SEC = 10.0  # for a request's first line and headers
DRAIN_SEC = 30.0  # for what is running when the server is told to end
MOST_CONNECTIONS = 1024
LARGEST_BURST = 128


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose request does not come, and where there are too many, one that has asked nothing yet."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()
        if len(self.connections) <= (most := most_connections()):
            return
        open_ones = [other for other in self.connections if isinstance(other, BoundedProtocol) and not other.is_closing]
        if len(open_ones) > most:
            silent = (other for other in open_ones if other is not self and other.cycle is None)
            next(silent, self).transport.abort()

    @property
    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_request()

    def _expect_request(self) -> None:
        self.loop.call_later(HEAD_SEC, self._close_if_idle, self.cycle)

    def _close_if_idle(self, last: object) -> None:
        """Nothing was asked since the `last` request."""
        if self.cycle is last and not self.is_closing:
            self.transport.abort()


class HttpServer(uvicorn.Server):
    """The first Ctrl-C or SIGTERM lets it finish what runs, for DRAIN_SEC at most; the second ends it at once."""

    def __init__(self, app: FastAPI) -> None:
        bounds: dict[str, Any] = {"timeout_graceful_shutdown": int(DRAIN_SEC), "http": BoundedProtocol, "backlog": burst()}
        super().__init__(uvicorn.Config(app, log_level="error", lifespan="on", ws="none", **bounds))

    def serve_on(self, listener: socket.socket) -> None:
        """What is loaded by now will never be garbage. Looking through it for some took a tenth of a second every few texts, in
        which nobody was answered (docs/log.md).
        """
        gc.collect()
        gc.freeze()
        self.run(sockets=[listener])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # each request that is cut off would be told
            sig = signal.SIGINT
        super().handle_exit(sig, frame)


def most_connections() -> int:
    """Half of the files that the process may have open, less a burst of new ones; no more than MOST_CONNECTIONS."""
    return max(1, min(MOST_CONNECTIONS, _files() // 2 - burst()))


def burst() -> int:
    """How many connections are accepted at a time; the event loop takes several times as many before it tells of the first."""
    return max(1, min(LARGEST_BURST, _files() // 8))


def _files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
