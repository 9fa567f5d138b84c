"""ApiKey: lets in who has the key."""

import hmac
import json

from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.serve.protocol import error_body

OPEN_TO_ALL = {"/health", "/ready"}  # what asks them, to start and stop servers, has no key


class ApiKey:
    """Answers 401 unless a request says `Authorization: Bearer` and the key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._expected = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] != "http" or scope["path"] in OPEN_TO_ALL or hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
            return
        body = json.dumps(
            error_body("the API key is missing or wrong", None, "invalid_api_key", "authentication_error")
        ).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 401, "headers": [*headers, (b"www-authenticate", b"Bearer")]})
        await send({"type": "http.response.body", "body": body})
