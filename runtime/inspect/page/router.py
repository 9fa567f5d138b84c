"""The live page: what it shows, over HTTP, as a page or as JSON under the same path.

`GET /` and `GET /text?text=…` are a text, `GET /row/LAYER/ROW` is a row, `GET /ngram?text=…` a phrase. A request that accepts
`application/json` gets the document, any other the page, which then asks for the document.
"""

from collections.abc import Callable
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from hashing.base.errors import EngramError
from runtime.inspect.page.content import Content
from runtime.inspect.page.frozen import asset

FIRST_TEXT = "if value is not None:\n    return self.name"
HEADERS = {  # the page loads nothing from anywhere else, and nobody frames it
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}


def page_router(content: Content) -> APIRouter:
    router = APIRouter()
    page = asset("page.html").replace("<body>", f'<body data-run="{escape(content.name)}">')

    def answer(request: Request, document: Callable[[], dict[str, Any]]) -> Response:
        if "application/json" not in request.headers.get("accept", ""):
            return HTMLResponse(page, headers=HEADERS)
        try:
            return JSONResponse(document(), headers=HEADERS)
        except EngramError as e:
            message = f"{e} ({e.hint})" if e.hint else str(e)
            return JSONResponse({"error": {"message": message}}, 400, headers=HEADERS)

    @router.get("/", response_model=None)
    def first(request: Request) -> Response:
        return answer(request, lambda: content.text(FIRST_TEXT))

    @router.get("/text", response_model=None)
    def text(request: Request, text: str = "") -> Response:
        return answer(request, lambda: content.text(text))

    @router.get("/ngram", response_model=None)
    def ngram(request: Request, text: str = "") -> Response:
        return answer(request, lambda: content.ngram(text))

    @router.get("/row/{layer}/{row}", response_model=None)
    def row(request: Request, layer: int, row: int) -> Response:
        return answer(request, lambda: content.rows([(layer, row)])[f"{layer}/{row}"])

    @router.get("/style.css", response_model=None)
    def style() -> Response:
        return Response(asset("style.css"), media_type="text/css", headers=HEADERS)

    @router.get("/script.js", response_model=None)
    def script() -> Response:
        return Response(asset("script.js"), media_type="text/javascript", headers=HEADERS)

    return router
