"""The frozen page: one file with its markup, stylesheet, script and data, that asks for nothing and keeps for years.

The text's document stands in it as JSON. Those of the rows, which repeat one another's contexts, are one JSON object by
"layer/row", compressed by gzip and written in base64: a tenth of the size.
"""

import gzip
import json
from base64 import b64encode
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from runtime.inspect.page.content import Content

ROW_SAMPLED = 40  # occurrences of each row that the model reads
ROWS_BYTES = 48 << 20  # of the rows' documents together, not compressed; rows that come later in the text are left out
AT_ONCE = 64  # rows that are looked at together
STYLE, SCRIPT = '<link rel="stylesheet" href="/style.css">', '<script src="/script.js"></script>'


def asset(name: str) -> str:
    """The page's markup, stylesheet or script, as it is installed."""
    return files("runtime.inspect.page").joinpath(name).read_text(encoding="utf-8")


def frozen_page(content: Content, text: str, progress: Callable[[float], None] = lambda _: None) -> str:
    """The page of a text with the rows that it reads, as far as ROWS_BYTES go; `progress` hears which share of them is done.

    Raises UsageError for a text without tokens or with too many.
    """
    document = content.text(text)
    rows = json.dumps(_rows(content, document, progress), ensure_ascii=False)
    page = asset("page.html")
    assert STYLE in page
    assert SCRIPT in page
    packed = b64encode(gzip.compress(rows.encode("utf-8", "surrogatepass"), mtime=0)).decode()
    data = f'<script type="application/json" id="data">{_inert(json.dumps(document, ensure_ascii=False))}</script>\n'
    data += f'<script type="application/gzip" id="rows">{packed}</script>'
    page = page.replace(STYLE, f"<style>\n{asset('style.css')}</style>")
    return page.replace(SCRIPT, f"{data}\n<script>\n{asset('script.js')}</script>")


def _inert(text: str) -> str:
    """JSON in which nothing can end the script element that it stands in, or open another; it reads the same."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _rows(content: Content, document: dict[str, Any], progress: Callable[[float], None]) -> dict[str, dict[str, Any]]:
    """By "layer/row", in the order in which the text reads them."""
    wanted = list(
        dict.fromkeys(
            (int(layer), row)
            for position in document["positions"]
            for layer, found in position["layers"].items()
            for ngram in found["orders"].values()
            for row in ngram["rows"]
        )
    )
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
