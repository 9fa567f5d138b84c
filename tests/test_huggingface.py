"""A `transformers` model whose table is never loaded computes what the library's own does."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from hashing.base.errors import EngramError
from runtime.huggingface import load
from tests.commands import document

GOLDEN = Path(__file__).parent / "golden" / "qwen_tiny"
EOS, PAD = 7, 0


@pytest.fixture(scope="module")
def own() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(GOLDEN).eval()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "t.zarr"
    document("table", "import", GOLDEN, "--out", path)
    return path


@pytest.fixture(scope="module", params=["in place", "store, device", "store, host", "store, disk"])
def ours(request: pytest.FixtureRequest, store: Path) -> Any:
    source, _, rows = request.param.partition(", ")
    return load(GOLDEN, rows=rows or "disk", store=store if source == "store" else None)


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (3, 19) with ends of documents inside, and a mask that pads two of them on the left."""
    random = np.random.default_rng(seed)
    ids, mask = random.integers(8, 4096, (3, 19)), np.ones((3, 19), np.int64)
    ids[random.random(ids.shape) < 0.15] = EOS
    for line, padding in ((1, 4), (2, int(random.integers(1, 12)))):
        ids[line, :padding], mask[line, :padding] = PAD, 0
    return torch.from_numpy(ids), torch.from_numpy(mask)


def test_golden_logits(ours: Any) -> None:
    expected = load_file(GOLDEN / "expected.safetensors")
    with torch.no_grad():
        logits = ours(expected["token_ids"]).logits
    torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_logits_and_greedy_text_are_the_library_s(own: Any, ours: Any, seed: int) -> None:
    ids, mask = drawn(seed)
    assert torch.equal(ours(ids, attention_mask=mask).logits, own(ids, attention_mask=mask).logits)
    length: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "eos_token_id": -1}
    assert torch.equal(ours.generate(ids, **length), own.generate(ids, **length))


@torch.no_grad()
def test_rows_are_asked_for_before_the_first_block(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the text model's hook are those that the embedding wants, in the prompt and at each step after it."""
    ids, _ = drawn(9)
    (rows,) = (module for module in ours.modules() if type(module).__name__ == "Rows")
    asked = []
    ask = type(rows).ask
    monkeypatch.setattr(type(rows), "ask", lambda self, numbers: (asked.append(numbers.shape), ask(self, numbers))[1])
    ours.generate(ids, max_new_tokens=5, do_sample=False)
    assert [shape[1] for shape in asked] == [19, 1, 1, 1, 1]


def test_the_table_is_no_parameter(own: Any, ours: Any) -> None:
    names = {name for name, _ in own.named_parameters()} - {name for name, _ in ours.named_parameters()}
    assert [name.rpartition(".ple.")[2] for name in names] == ["ple_embedding.ngram_embedding.weight"]


def test_a_store_of_another_model(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(GOLDEN, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"eos_token_id": 9}))
    with pytest.raises(EngramError, match=r"is of spec .*, expected"):
        load(other, store=store)


def test_what_is_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(EngramError, match="no such checkpoint folder"):
        load(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(EngramError, match="is of the model type llama, expected qwen4_exp"):
        load(tmp_path)
