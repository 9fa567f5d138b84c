"""A real browser without a window: Debian's Chromium, driven by Playwright."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.programs import program

WITHOUT_OTHERS = (  # a fresh browser asks its maker's hosts for this and that
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--no-first-run", "--no-sandbox", "--disable-gpu"),
)
SECONDS = 30


@dataclass(slots=True)
class Tab:
    """A page, with what it asked for and what it said on its console."""

    page: Any
    asked: list[str] = field(default_factory=list)  # addresses
    said: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return str(self.page.text_content(selector))

    @property
    def focused_token(self) -> str | None:
        return self.page.evaluate("document.activeElement.dataset.token ?? null")  # type: ignore[no-any-return]

    @property
    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@dataclass(frozen=True, slots=True)
class Browser:
    chromium: Any

    @contextmanager
    def tab(self, address: str, width: int = 1200, scheme: str = "light") -> Iterator[Tab]:
        """The page at an address, ended without an error on its console or a request to another host."""
        context = self.chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab = Tab(context.new_page())
        tab.page.set_default_timeout(1000 * SECONDS)
        tab.page.on("request", lambda request: tab.asked.append(request.url))
        tab.page.on("console", lambda message: tab.said.append(message.text))
        tab.page.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.page.goto(address)
        yield tab
        assert tab.said == []
        host = address.split("/")[2]
        assert {url.split("/")[2] for url in tab.asked if not url.startswith("data:")} == {host}
        context.close()


@contextmanager
def browser() -> Iterator[Browser]:
    path = program("chromium", "chromium-browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(WITHOUT_OTHERS))
        yield Browser(started)
        started.close()
