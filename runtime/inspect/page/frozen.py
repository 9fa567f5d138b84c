"""The frozen page: one file with its markup, stylesheet, script and data, that asks for nothing and keeps for years.

The text's document stands in it as JSON. Those of the rows, which repeat one another's contexts, are one JSON object by
"layer/row", compressed by gzip and written in base64: a tenth of the size. A long text reads more rows than a file should hold:
those that the text reads first are kept, and `kept_rows`, `left_out_rows` and `rows_bytes` of the document say how many and how
large.
"""

import gzip
import json
from base64 import b64encode
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from runtime.inspect.page.content import Content

ROW_SAMPLED = 40  # occurrences of each row that the model reads
ROWS, ROWS_BYTES = 640, 48 << 20  # that are kept, and of their documents together, not compressed
AT_ONCE = 64  # rows that are looked at together
CHARSET = '<meta charset="utf-8">'
POLICY = (  # what is in the file and nothing else
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">"
)
STYLE, SCRIPT = '<link rel="stylesheet" href="/style.css">', '<script src="/script.js"></script>'


def asset(name: str) -> str:
    """The page's markup, stylesheet or script, as it is installed."""
    return files("runtime.inspect.page").joinpath(name).read_text(encoding="utf-8")


def frozen_page(content: Content, text: str, progress: Callable[[float], None] = lambda _: None, most_rows: int = ROWS) -> str:
    """The page of a text with the rows that it reads first, as far as ROWS_BYTES go; `progress` hears which share is done.

    Raises UsageError for a text without tokens or with too many.
    """
    document = content.text(text)
    wanted = _wanted(document)
    kept = _rows(content, wanted[:most_rows], progress)
    rows = json.dumps(kept, ensure_ascii=False)
    packed = b64encode(gzip.compress(rows.encode("utf-8"), mtime=0)).decode()
    document |= {"kept_rows": len(kept), "left_out_rows": len(wanted) - len(kept), "rows_bytes": len(packed)}
    page = asset("page.html").replace(CHARSET, f"{CHARSET}\n{POLICY}")
    assert all(part in page for part in (POLICY, STYLE, SCRIPT))
    data = f'<script type="application/json" id="data">{_inert(json.dumps(document, ensure_ascii=False))}</script>\n'
    data += f'<script type="application/gzip" id="rows">{packed}</script>'
    page = page.replace(STYLE, f"<style>\n{asset('style.css')}</style>")
    return page.replace(SCRIPT, f"{data}\n<script>\n{asset('script.js')}</script>")


def _inert(text: str) -> str:
    """JSON in which nothing can end the script element that it stands in, or open another; it reads the same."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _wanted(document: dict[str, Any]) -> list[tuple[int, int]]:
    """The rows, as (layer, row), that a text's document names, each once, in the order in which the text reads them."""
    return list(
        dict.fromkeys(
            (int(layer), row)
            for position in document["positions"]
            for layer, found in position["layers"].items()
            for ngram in found["orders"].values()
            for row in ngram["rows"]
        )
    )


def _rows(content: Content, wanted: list[tuple[int, int]], progress: Callable[[float], None]) -> dict[str, dict[str, Any]]:
    """By "layer/row", the first of those that are wanted, as far as ROWS_BYTES go."""
    kept: dict[str, dict[str, Any]] = {}
    size = 0
    for first in range(0, len(wanted), AT_ONCE):
        for name, row in content.rows(wanted[first : first + AT_ONCE], ROW_SAMPLED).items():
            size += len(json.dumps(row, ensure_ascii=False).encode())
            if size > ROWS_BYTES:
                return kept
            kept[name] = row
        progress(min(1.0, (first + AT_ONCE) / len(wanted)))
    return kept
