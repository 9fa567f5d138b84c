"""The page in a real browser, frozen in a file and live from a server; and what it shows, as JSON."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import torch

from runtime.inspect.page.content import RunContent
from runtime.inspect.page.frozen import frozen_page
from runtime.run import Run
from runtime.trained_run import TrainedRun
from tests.browser import Browser, Tab, browser
from tests.commands import document, engram, engram_process, refused

DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
TEXT = "def one(x):\n    return 'two</script><b>😀'"


@pytest.fixture(scope="module")
def counted_run(trained_run: Run, corpus_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The trained run, with its corpus counted."""
    run = Run(shutil.copytree(trained_run.folder, tmp_path_factory.mktemp("counted") / "run"))
    document("stats", corpus_path, "--run", run.folder)
    return run


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def file(counted_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frozen") / "page.html"
    done = engram("inspect", "text", TEXT, "--html", path, "--run", counted_run.folder)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stderr
    return path


@contextmanager
def serving(run: Run) -> Iterator[str]:
    """The address of a server of the run, in a process of its own."""
    with engram_process("serve", "--port", 0, "--run", run.folder) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
            assert address is not None
            yield address.group()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def address(counted_run: Run) -> Iterator[str]:
    with serving(counted_run) as found:
        yield found


def frozen_data(path: Path) -> dict[str, Any]:
    data = DATA.search(path.read_text())
    assert data is not None
    return dict(json.loads(data[1]))


def use_by_hand(tab: Tab, tokens: list[str]) -> None:
    """Goes through a text with mouse and keyboard, into a row and back."""
    page = tab.page
    page.wait_for_selector("[data-token]")
    assert page.locator("[data-token]").count() == len(tokens)
    shown = [
        piece.replace("·", " ").replace("⏎", "").replace("∅", "") for piece in page.locator("[data-token]").all_text_contents()
    ]
    assert shown == tokens
    page.hover('[data-token="2"]')
    assert "token 2" in tab.text("#token h2")
    page.click('[data-token="2"]')
    page.hover('[data-token="1"]')
    assert "token 2" in tab.text("#token h2"), "a click holds a token"
    page.keyboard.press("Escape")
    page.hover('[data-token="1"]', position={"x": 2, "y": 3})
    assert "token 1" in tab.text("#token h2")
    page.focus('[data-token="3"]')
    page.keyboard.press("ArrowRight")
    assert tab.focused_token == "4"
    assert "token 4" in tab.text("#token h2")
    page.keyboard.press("End")
    assert tab.focused_token == str(len(tokens) - 1)
    page.keyboard.press("ArrowRight")
    assert tab.focused_token == str(len(tokens) - 1)
    assert "in the corpus" in tab.text("#token")
    assert page.locator("#token .lens li").count() >= 40, "ten up and ten down of each order"
    page.keyboard.press("ArrowUp")
    assert tab.focused_token not in (None, str(len(tokens) - 1)), "the line above"
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_selector("#row")
    assert page.locator("svg rect").count() == 100, "two histograms of 50 bins"
    assert page.locator(".lens li").count() == 20
    assert "Known n-grams" in tab.text("main")
    assert "Nearest rows" in tab.text("main")
    page.keyboard.press("Escape")
    page.wait_for_selector("[data-token]")
    assert tab.focused_token == str(len(tokens) - 1)


def test_a_frozen_page_by_hand(chromium: Browser, file: Path) -> None:
    data = frozen_data(file)
    with chromium.tab(file.as_uri()) as tab:
        use_by_hand(tab, data["tokens"])
        assert tab.asked == [file.as_uri()], "all is in the file"


def test_markup_in_a_text_is_text(chromium: Browser, file: Path) -> None:
    assert file.read_text().count("</script>") == 3
    with chromium.tab(file.as_uri()) as tab:
        tab.page.wait_for_selector("[data-token]")
        assert tab.page.locator("#view b").count() == 0
        assert "<b>" in tab.text(".strip").replace("·", "")


def test_a_live_page_by_hand(chromium: Browser, address: str, counted_run: Run) -> None:
    said = document("inspect", "text", TEXT, "--run", counted_run.folder)
    with chromium.tab(address) as tab:
        tab.page.wait_for_selector("[data-token]")
        tab.page.fill("#text", TEXT)
        tab.page.click("#ask button")
        tab.page.wait_for_url("**/text?text=def*")
        tab.page.wait_for_selector(f'[data-token="{len(said["tokens"]) - 1}"]')
        use_by_hand(tab, said["tokens"])


def test_a_row_that_a_file_leaves_out(chromium: Browser, counted_run: Run, tmp_path: Path) -> None:
    content = RunContent.open(counted_run, TrainedRun.load(counted_run, torch.device("cpu")))
    path = tmp_path / "page.html"
    path.write_text(frozen_page(content, "import os", most_rows=1), encoding="utf-8")
    data = frozen_data(path)
    assert data["kept_rows"] == 1
    with chromium.tab(path.as_uri()) as tab:
        assert f"{data['left_out_rows']} are left out" in tab.text("main")
        tab.page.click("#token tbody tr:nth-child(2) a")
        tab.page.wait_for_selector("#status.error")
        assert "is not kept in this file" in tab.text("#status")
        tab.page.click("main a")
        tab.page.wait_for_selector("[data-token]")
        assert tab.text("#status") == ""


def test_switches_of_layers_and_streams(chromium: Browser, file: Path, tmp_path: Path) -> None:
    """The document of the file with another layer and another stream, as larger runs have them."""
    data = frozen_data(file)
    own = data["gates"]["1"]
    data["gates"] = {"1": [[gate, 0.25] for (gate,) in own], "2": [[0.5, 0.75] for _ in own]}
    for position in data["positions"]:
        position["layers"]["2"] = position["layers"]["1"]
    path = tmp_path / "page.html"
    path.write_text(
        DATA.sub(lambda found: found[0].replace(found[1], json.dumps(data).replace("<", "\\u003c")), file.read_text())
    )
    with chromium.tab(path.as_uri()) as tab:
        tab.page.wait_for_selector("[data-token]")
        seen = lambda: tab.page.eval_on_selector("[data-token]", "e => e.style.getPropertyValue('--open')")  # noqa: E731
        assert float(seen()) == pytest.approx(own[0][0], abs=0.001)
        for name, number, gate in (("stream", 1, 0.25), ("layer", 2, 0.75), ("stream", 0, 0.5)):
            button = f'fieldset[data-name="{name}"] button:text-is("{number}")'
            tab.page.focus(button)
            tab.page.keyboard.press("Enter")
            assert float(seen()) == gate
            assert tab.page.eval_on_selector(button, "e => e === document.activeElement && e.ariaPressed === 'true'")
        assert "gate0.500, 0.750" in tab.text("#token .facts")


def test_a_phrase_has_a_page(chromium: Browser, address: str) -> None:
    with chromium.tab(f"{address}/ngram?text=return") as tab:
        tab.page.wait_for_selector("#ngram")
        assert tab.page.locator("main .lens li").count() >= 40
        tab.page.keyboard.press("Escape")
        tab.page.wait_for_selector("[data-token]")


def test_what_cannot_be_shown_is_said(chromium: Browser, address: str) -> None:
    with chromium.tab(address) as tab:
        tab.page.wait_for_selector("[data-token]")
        tab.page.fill("#text", "")
        tab.page.click("#ask button")
        tab.page.wait_for_selector("#status.error")
        assert "the text is empty" in tab.text("#status")
        assert tab.said == ["Failed to load resource: the server responded with a status of 400 (Bad Request)"]
        tab.said.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(chromium: Browser, file: Path, scheme: str) -> None:
    with chromium.tab(file.as_uri(), 400, scheme) as tab:
        tab.page.wait_for_selector("[data-token]")
        assert tab.overflow == 0
        tab.page.focus("[data-token]")
        tab.page.keyboard.press("Enter")
        tab.page.wait_for_selector("#row")
        assert tab.overflow == 0


def test_dark_is_dark_and_both_can_be_read(chromium: Browser, file: Path) -> None:
    """Contrast of text on paper as WCAG computes it: at least 4.5 for all text, at gates that are wide open too."""
    lightness = {}
    for scheme in ("light", "dark"):
        with chromium.tab(file.as_uri(), scheme=scheme) as tab:
            tab.page.wait_for_selector("[data-token]")
            colours = tab.page.evaluate(
                """() => {
                const style = getComputedStyle(document.documentElement);
                const probe = document.body.appendChild(document.createElement("i"));
                const rgb = (value) => {
                  probe.style.color = value;
                  return getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number);
                };
                const get = (name) => rgb(style.getPropertyValue(name));
                const found = Object.fromEntries(["--paper", "--card", "--ink", "--quiet", "--helps", "--harms"]
                  .map((n) => [n, get(n)]));
                const open = rgb("color-mix(in srgb, var(--gate) 75%, var(--card))");
                found.open = open.some((part) => part > 1) ? open : open.map((part) => 255 * part);
                return found;
                }"""
            )
        light = {name: _luminance(rgb) for name, rgb in colours.items()}
        lightness[scheme] = light["--paper"]
        for ink in ("--ink", "--quiet", "--helps", "--harms"):
            assert _contrast(light[ink], light["--paper"]) > 4.5, (scheme, ink)
            assert _contrast(light[ink], light["--card"]) > 4.5, (scheme, ink)
        assert _contrast(light["--ink"], light["open"]) > 4.5, scheme
    assert lightness["dark"] < 0.05 < 0.8 < lightness["light"]


def _luminance(rgb: list[float]) -> float:
    parts = [c / 255 for c in rgb[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_a_page_is_json_under_the_same_path(address: str, counted_run: Run) -> None:
    with httpx.Client(base_url=address, timeout=30) as client:
        for path in ("/", "/text?text=import", "/ngram?text=import", "/row/1/0"):
            page = client.get(path, headers={"Accept": "text/html"})
            assert page.status_code == 200
            assert page.text.startswith("<!doctype html>")
            assert "default-src 'self'" in page.headers["Content-Security-Policy"]
            assert client.get(path, headers={"Accept": "application/json"}).json()
        ask = {"Accept": "application/json"}
        text = client.get("/text", params={"text": "import os"}, headers=ask).json()
        said = document("inspect", "text", "import os", "--run", counted_run.folder)
        assert {name: text[name] for name in ("tokens", "token_ids", "layers")} == {
            name: said[name] for name in ("tokens", "token_ids", "layers")
        }
        assert text["loss_nats"][1:] == pytest.approx(said["loss_nats"][1:], rel=1e-4)
        row = client.get("/row/1/5", headers=ask).json()
        told = document("inspect", "row", 1, 5, "--run", counted_run.folder)
        assert {name: row[name] for name in ("order", "head", "norm", "ngrams", "training_reads")} == {
            name: told[name] for name in ("order", "head", "norm", "ngrams", "training_reads")
        }
        for wrong, message in (
            ("/text?text=", "empty"),
            ("/ngram?text=", "empty"),
            ("/text?text=" + "%00" * 600, "more than the 512 of a page"),
            ("/row/1/99999999", "outside the table"),
            ("/row/1/-1", "outside the table"),
            ("/row/7/0", "layer 7"),
            ("/row/1/one", "row"),
        ):
            refusal = client.get(wrong, headers=ask)
            assert refusal.status_code == 400
            assert message in refusal.json()["error"]["message"]
        assert client.get("/health").json() == {"status": "ok"}


def test_looking_and_completing_do_not_disturb_each_other(address: str) -> None:
    body = {"model": "run", "prompt": "def ", "max_tokens": 12, "temperature": 0}
    with httpx.Client(base_url=address, timeout=60) as client, ThreadPoolExecutor(6) as together:
        complete = lambda _: client.post("/v1/completions", json=body).json()["choices"][0]["text"]  # noqa: E731
        look = lambda _: client.get("/text?text=import os", headers={"Accept": "application/json"}).json()["loss_nats"]  # noqa: E731
        alone, seen = complete(0), look(0)
        completed, looked = together.map(complete, range(8)), together.map(look, range(8))
        assert set(completed) == {alone}
        assert all(found == seen for found in looked)


def test_many_who_look_do_not_keep_a_completion_waiting(address: str) -> None:
    """More than there are threads for requests: they wait for one another and not in these threads."""
    body = {"model": "run", "prompt": "def ", "max_tokens": 4, "temperature": 0}
    with httpx.Client(base_url=address, timeout=60) as client, ThreadPoolExecutor(61) as together:
        look = lambda _: client.get("/ngram?text=import", headers={"Accept": "application/json"}).status_code  # noqa: E731
        looks = [together.submit(look, number) for number in range(60)]
        time.sleep(0.2)
        assert client.post("/v1/completions", json=body).status_code == 200
        assert sum(found.done() for found in looks) < 50, "the completion came while most were waiting"
        assert {found.result() for found in looks} == {200}


def test_a_page_replaces_a_file_only_by_force(file: Path, counted_run: Run) -> None:
    before = file.read_bytes()
    call = ("inspect", "text", "other", "--html", file, "--run", counted_run.folder)
    refused(engram(*call), 1, "page.html is already there and would be overwritten")
    assert file.read_bytes() == before


def test_a_run_without_counts_says_what_to_run(trained_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("what --force replaces")
    done = engram("inspect", "text", "import os", "--html", path, "--force", "--run", trained_run.folder)
    assert done.returncode == 0
    assert "engram stats" in done.stderr
    assert "engram stats" in str(frozen_data(path)["notes"])


def test_counts_of_another_vocabulary_keep_nobody_from_completing(counted_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(counted_run.folder, tmp_path / "run"))
    counts = pq.read_table(run.folder / "ngrams.parquet")
    told = json.loads(counts.schema.metadata[b"engram.counts"]) | {"vocab_fingerprint": "0" * 16}
    pq.write_table(counts.replace_schema_metadata({"engram.counts": json.dumps(told)}), run.folder / "ngrams.parquet")
    with serving(run) as address, httpx.Client(base_url=address, timeout=30) as client:
        for _ in range(2):
            refusal = client.get("/", headers={"Accept": "application/json"})
            assert refusal.status_code == 400
            assert f"counted with vocabulary {'0' * 16}" in refusal.json()["error"]["message"]
        body = {"model": "run", "prompt": "def ", "max_tokens": 2}
        assert client.post("/v1/completions", json=body).status_code == 200


READ_STREAM = """async () => {
    const body = {model: "run", prompt: "def ", max_tokens: 40, temperature: 0, stream: true}
    const headers = {"Content-Type": "application/json"}
    const answer = await fetch("/v1/completions", {method: "POST", headers, body: JSON.stringify(body)})
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    let read = ""
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) read += piece.value
    const events = read.split("\\n\\n").filter(line => line.startsWith("data: {")).map(line => JSON.parse(line.slice(6)))
    return [events.map(event => event.choices[0].text).join(""), events.length]
}"""


def test_a_browser_reads_a_stream(chromium: Browser, address: str) -> None:
    body = {"model": "run", "prompt": "def ", "max_tokens": 40, "temperature": 0}
    whole = httpx.post(f"{address}/v1/completions", json=body, timeout=30).json()["choices"][0]["text"]
    with chromium.tab(address) as tab:
        tab.page.wait_for_selector("[data-token]")
        text, events = tab.page.evaluate(READ_STREAM)
    assert text == whole
    assert events > 1
