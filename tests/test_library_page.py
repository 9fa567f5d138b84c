"""The page of a `transformers` model: its gates and rows, read in place or from a store, beside completions."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file

from hashing import reference
from runtime.huggingface import rows_of
from runtime.inspect.page.library_content import LibraryContent
from runtime.inspect.page.router import page_router
from runtime.run import Run
from runtime.serve.library_generator import LibraryGenerator
from runtime.serve.sampler import Sampling
from runtime.serve.server import build_app
from table.encodings.encoding import ENCODINGS
from table.store.parted_table import PartedTable
from table.store.parts import FilePart
from tests.commands import document, engram

GOLDEN = Path(__file__).parent / "golden" / "qwen_tiny"
TEXT = "def parse(text):\n    return text"


@pytest.fixture(scope="module")
def folder(trained_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(GOLDEN, found)
    shutil.copy(trained_run.tokenizer_path, found / "tokenizer.json")
    return found


@pytest.fixture(scope="module")
def generator(folder: Path) -> LibraryGenerator:
    return LibraryGenerator.load(folder, "disk")


@pytest.fixture(scope="module")
def content(folder: Path, generator: LibraryGenerator) -> LibraryContent:
    return LibraryContent.open(folder, None, generator.model, generator.turn)


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    """The checkpoint's own rows."""
    tensors = load_file(GOLDEN / "model-00004-of-00005.safetensors")
    return torch.cat([tensors[f"model.layers.1.ple.ple_embedding.ngram_embedding.shard_{i}.weight"] for i in range(4)]).float()


def test_a_text_has_the_gates_and_rows_that_the_model_reads(
    content: LibraryContent, generator: LibraryGenerator, folder: Path, table: torch.Tensor
) -> None:
    shown, seen = content.text(TEXT), document("inspect", "text", TEXT, "--model", folder)
    assert shown["gates"] == {int(layer): gates for layer, gates in seen["gates"].items()}
    assert shown["loss_nats"] == seen["loss_nats"]
    (rows,) = rows_of(generator.model)
    expected = reference.rows(rows.spec, rows.layer, shown["token_ids"])
    for position, read in zip(shown["positions"], expected, strict=True):
        orders = position["layers"][rows.layer]["orders"].values()
        assert [row for order in orders for row in order["rows"]] == list(read)
        norms = [norm for order in orders for norm in order["row_norms"]]
        assert norms == pytest.approx(table[list(read)].norm(dim=1).tolist(), rel=1e-5)


def test_a_row_is_compared_with_all_of_its_head(content: LibraryContent, table: torch.Tensor) -> None:
    (found,) = content.rows([(1, 157)]).values()
    head = table[:1009]
    cosines = torch.nn.functional.cosine_similarity(head[157], head, dim=1)
    cosines[157] = -2
    assert found["neighbours"][0]["row"] == int(cosines.argmax())
    assert found["norm_percentile"] == pytest.approx(100 * float((head.norm(dim=1) < head[157].norm()).sum() + 0.5) / 1009)
    assert found["lens"] is found["contexts"] is None


def test_rows_in_place_are_those_of_a_store(
    content: LibraryContent, folder: Path, generator: LibraryGenerator, tmp_path: Path
) -> None:
    store = tmp_path / "t.zarr"
    document("table", "import", folder, "--out", store)
    stored = LibraryContent.open(folder, store, generator.model, generator.turn)
    assert stored.ngram(TEXT) == content.ngram(TEXT)
    assert stored.rows([(1, 5), (1, 7000)]) == content.rows([(1, 5), (1, 7000)])


@pytest.mark.parametrize("first", [0, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_stretch_of_a_table_in_parts(tmp_path: Path, first: int, count: int) -> None:
    numbers = np.random.default_rng(0).random((10, 4), np.float32)
    parts = []
    for name, own in (("a", numbers[:3]), ("b", numbers[3:4]), ("c", numbers[4:])):
        path = tmp_path / name
        path.write_bytes(b"head" + own.tobytes())
        parts.append(FilePart(path, 4, len(own), 16))
    parted = PartedTable.mapped(parts, ENCODINGS["float32"], 4, 1.0)
    np.testing.assert_array_equal(parted.stretch(first, first + count).view("<f4"), numbers[first : first + count])


def test_looking_and_completing_do_not_disturb_each_other(content: LibraryContent, generator: LibraryGenerator) -> None:
    prompt, sampling = generator.encode(TEXT), Sampling(24)
    alone, shown = list(generator.token_ids(prompt, sampling)), content.text(TEXT)
    with ThreadPoolExecutor(2) as threads:
        looked = [threads.submit(content.text, TEXT) for _ in range(6)]
        texts = [threads.submit(lambda: list(generator.token_ids(prompt, sampling))) for _ in range(3)]
        assert all(each.result(60) == alone for each in texts)
        assert all(each.result(60) == shown for each in looked)


def test_over_http(content: LibraryContent, generator: LibraryGenerator) -> None:
    app = build_app(generator, "tiny")
    app.include_router(page_router("tiny", lambda: content))
    with TestClient(app) as client:
        asked: dict[str, Any] = {"params": {"text": TEXT}, "headers": {"accept": "application/json"}}
        assert client.get("/text", **asked).json()["token_ids"] == content.text(TEXT)["token_ids"]
        assert 'data-run="tiny"' in client.get("/text").text
        long = client.get("/text", params={"text": "x\n" * 3000}, headers={"accept": "application/json"})
        assert long.status_code == 400
        assert "more than the 512 of a page" in long.json()["error"]["message"]


def test_a_frozen_page(folder: Path, content: LibraryContent, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    told = engram("inspect", "text", TEXT, "--model", folder, "--html", path)
    assert told.returncode == 0, told.stderr
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    assert found
    assert json.loads(found[1])["gates"]["1"] == content.text(TEXT)["gates"][1]
    assert engram("inspect", "text", TEXT, "--model", folder, "--html", path).returncode == 1
