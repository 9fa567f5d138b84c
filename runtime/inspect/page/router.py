"""The live page: what it shows, over HTTP, as a page or as JSON under the same path.

`GET /` and `GET /text?text=…` are a text, `GET /row/LAYER/ROW` is a row, `GET /ngram?text=…` a phrase. A request that accepts
`application/json` gets the document, any other the page, which then asks for the document. Documents are made one after another
on a thread of their own: however many are asked for, the threads that answer completions stay free. What is looked into is
opened when it is first asked for, so that nothing about the page keeps a server from completing.
"""

from collections.abc import Callable
from functools import cache
from html import escape
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from hashing.base.errors import EngramError
from runtime.inspect.page.content import Content
from runtime.inspect.page.frozen import asset

FIRST_TEXT = "if value is not None:\n    return self.name"
HEADERS = {  # the page loads nothing from anywhere else, and nobody frames it
    "Content-Security-Policy": "default-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}


def page_router(name: str, open_content: Callable[[], Content]) -> APIRouter:
    """Under the name of the run; `open_content` is called once, or again after an EngramError, which the page then shows."""
    router, one, content = APIRouter(), CapacityLimiter(1), cache(open_content)
    page = asset("page.html").replace("<body>", f'<body data-run="{escape(name)}">')

    async def answer(request: Request, document: Callable[[], dict[str, Any]]) -> Response:
        if "application/json" not in request.headers.get("accept", ""):
            return HTMLResponse(page, headers=HEADERS)
        try:
            return JSONResponse(await to_thread.run_sync(document, limiter=one), headers=HEADERS)
        except EngramError as e:
            message = f"{e} ({e.hint})" if e.hint else str(e)
            return JSONResponse({"error": {"message": message}}, 400, headers=HEADERS)

    @router.get("/", response_model=None)
    async def first(request: Request) -> Response:
        return await answer(request, lambda: content().text(FIRST_TEXT))

    @router.get("/text", response_model=None)
    async def text(request: Request, text: str = "") -> Response:
        return await answer(request, lambda: content().text(text))

    @router.get("/ngram", response_model=None)
    async def ngram(request: Request, text: str = "") -> Response:
        return await answer(request, lambda: content().ngram(text))

    @router.get("/row/{layer}/{row}", response_model=None)
    async def row(request: Request, layer: int, row: int) -> Response:
        return await answer(request, lambda: content().rows([(layer, row)])[f"{layer}/{row}"])

    @router.get("/style.css", response_model=None)
    async def style() -> Response:
        return Response(asset("style.css"), media_type="text/css", headers=HEADERS)

    @router.get("/script.js", response_model=None)
    async def script() -> Response:
        return Response(asset("script.js"), media_type="text/javascript", headers=HEADERS)

    return router
