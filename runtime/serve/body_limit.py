"""BodyLimit: refuses a request's body by its size, before anything is made of it."""

import json
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.serve.protocol import error_body

DRAINED = 16  # times the limit: so much of a refused body is read and dropped, since clients often read no answer before


class TooLargeError(Exception):
    pass


class BodyLimit:
    """Answers 413 for a body that says it is larger, and for one that is."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken, is_read = 0, False

        async def limited() -> Message:
            nonlocal taken, is_read
            message = await receive()
            taken += len(message.get("body", b""))
            is_read = not message.get("more_body", False)
            if taken > self._most_bytes:
                raise TooLargeError
            return message

        async def unless_refused(message: Message) -> None:
            """What reads the body may answer that it could not; that is answered here."""
            if taken <= self._most_bytes:
                await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._most_bytes:
            taken = self._most_bytes + 1
        else:
            with suppress(TooLargeError):
                await self._app(scope, limited, unless_refused)
        if taken > self._most_bytes:
            while not is_read and taken < DRAINED * self._most_bytes:
                with suppress(TooLargeError):
                    await limited()
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        body = json.dumps(error_body(f"the body is larger than {self._most_bytes} bytes", None, "too_large")).encode()
        length = str(len(body)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})
