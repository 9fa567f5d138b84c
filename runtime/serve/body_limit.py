"""BodyLimit: refuses a request's body by its size or for taking too long, before anything is made of it."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.serve.protocol import error_body

DRAINED = 16  # times the limit: so much of a refused body is read and dropped, since clients often read no answer before


BODY_SEC = 30.0  # that a body may take to arrive


class RefusedError(Exception):
    pass


class BodyLimit:
    """Answers 413 for a body that says it is larger, and for one that is; 408 for one that does not arrive."""

    def __init__(self, app: ASGIApp, most_bytes: int, body_sec: float = BODY_SEC) -> None:
        self._app, self._most_bytes, self._body_sec = app, most_bytes, body_sec

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken, is_read, is_late = 0, False, False
        until = asyncio.get_running_loop().time() + self._body_sec

        async def limited() -> Message:
            nonlocal taken, is_read, is_late
            if is_read:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError as e:
                is_late = True
                raise RefusedError from e
            taken += len(message.get("body", b""))
            is_read = not message.get("more_body", False)
            if taken > self._most_bytes:
                raise RefusedError
            return message

        async def unless_refused(message: Message) -> None:
            """What reads the body may answer that it could not; that is answered here."""
            if taken <= self._most_bytes and not is_late:
                await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._most_bytes:
            taken = self._most_bytes + 1
        else:
            with suppress(RefusedError):
                await self._app(scope, limited, unless_refused)
        while taken > self._most_bytes and not is_read and not is_late and taken < DRAINED * self._most_bytes:
            with suppress(RefusedError):
                await limited()
        if taken > self._most_bytes:
            await _refuse(send, 413, error_body(f"the body is larger than {self._most_bytes} bytes", None, "too_large"))
        elif is_late:
            await _refuse(send, 408, error_body(f"the body took longer than {self._body_sec:g} seconds", None, "too_slow"))


async def _refuse(send: Send, status: int, document: dict[str, Any]) -> None:
    body = json.dumps(document).encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
