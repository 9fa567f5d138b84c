"""What two cores compute together is what one computes, to the bit, whoever is late, asleep or not there."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runtime.decoder import Decoded, Decoder
from runtime.model import helper
from runtime.model.helper import NOBODY, Helper, offered
from runtime.model.helper_kernel import DONE, HAS_YIELD, OFFER, ON_X86, help_with
from runtime.model.pages import PAGE
from runtime.model.row_product import RowProduct, row_by_row
from runtime.run import Run
from tests.untrained import untrained

pytestmark = pytest.mark.skipif(not (ON_X86 and HAS_YIELD), reason="there is no helper on this kind of machine")


@pytest.fixture(scope="module", autouse=True)
def worth_it_for_one() -> Iterator[None]:
    """Few texts are enough, on however many cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helper, "FEWEST", 1)
        patch.setattr(helper, "CORES", 2)
        patch.setattr(torch, "get_num_threads", lambda: 1)
        yield


def word(of: Helper, number: int) -> int:
    return int(of._words[number])


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 40), inputs=st.integers(1, 70), outputs=st.integers(1, 150))
@torch.no_grad()
def test_products(rows: int, inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(rows * inputs + outputs)
    x, weight = (torch.randn(count, inputs, generator=generator) for count in (rows, outputs))
    product = RowProduct()
    with row_by_row():
        alone = product(x, weight)
        with helper.HELPER.helping(rows):
            for _ in range(20):
                assert torch.equal(product(x, weight), alone)


@torch.no_grad()
def test_the_helper_takes_its_part_also_after_it_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "PATIENCE", 1000)
    x, weight, product, own = torch.randn(16, 40), torch.randn(300, 40), RowProduct(), Helper()
    with row_by_row():
        alone = product(x, weight)
        for _ in range(3):
            before, until = word(own, DONE), time.monotonic() + 30
            while word(own, DONE) == before and time.monotonic() < until:
                with own.helping(16):
                    assert torch.equal(product(x, weight), alone)
            assert word(own, DONE) > before
            assert own._work is not None
            own._work.result(30)


@torch.no_grad()
def test_nobody_waits_for_a_helper_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "help_with", lambda *_: None)
    x, weight, product, own = torch.randn(16, 40), torch.randn(300, 40), RowProduct(), Helper()
    with row_by_row():
        alone = product(x, weight)
        with own.helping(16):
            assert torch.equal(product(x, weight), alone)
    assert (word(own, OFFER), word(own, DONE)) == (1, 0)


def test_a_helper_without_work_ends_and_leaves_what_it_came_too_late_for() -> None:
    words = np.zeros(256, np.int64)
    words[OFFER] = 7
    help_with(words.ctypes.data, 5000)
    assert words[DONE] == 0


def test_one_thread_at_a_time_is_helped() -> None:
    own, found = Helper(), list[int]()

    def other() -> None:
        found.append(offered())
        with own.helping(16):
            found.append(offered())

    with own.helping(16):
        assert offered() != NOBODY
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [NOBODY, NOBODY]
    assert offered() == NOBODY
    with own.helping(0):
        assert offered() == NOBODY


STEPS = """
import hashlib, time, torch
import numpy as np
from runtime.model import helper
from runtime.model.attention import Attention, Rotary
from runtime.model.config import ModelConfig
from runtime.model.helper_kernel import DONE
from runtime.model.pages import Batch, Pages
from runtime.model.row_product import Linear, row_by_row

torch.manual_seed(0)
torch.set_num_threads(1)
helper.CORES = 2
config = ModelConfig(1, 48, 1, heads=3, ffn=1, memory=None, qk_norm=True)
attention, layer, x = Attention(config, Rotary(config.head_dim, config.rope_base)), Linear(48, 100), torch.randn(70, 1, 16, 48)

@torch.no_grad()
def computed(texts):
    pages, found = Pages(config, torch.device("cpu")), hashlib.sha256()
    pages.grow(48)
    for t in range(70):
        batch = Batch(pages, np.arange(48).reshape(16, 3), np.arange(16), np.full(16, t)).block(0)
        with row_by_row(), helper.HELPER.helping(texts):
            for numbers in (attention(x[t], batch), layer(x[t])):
                found.update(numbers.numpy())
    return found.hexdigest()

found, until = {computed(0)}, time.monotonic() + 60
while helper.HELPER._words[DONE] == 0 and time.monotonic() < until:
    found.add(computed(16))
assert helper.HELPER._words[DONE] > 0
print(*found)
"""


def test_the_helper_s_code_is_the_other_core_s_compiled_now_or_from_the_cache(tmp_path: Path) -> None:
    cached = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", STEPS], env=cached, capture_output=True, text=True, timeout=200)
        assert run.returncode == 0, run.stderr
        assert len(run.stdout.split()) == 1
    assert list(tmp_path.rglob("*help_with*.nbc"))


@pytest.mark.parametrize("form", [[], ["model.heads=4", "model.kv_heads=2", "model.qk_norm=true"], ["model.streams=2"]])
def test_texts_that_go_on_with_a_helper(vocab_run: Run, form: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts, in which rows read those before them, and then token by token over the ends of pages."""
    model, lookup = untrained(vocab_run, *form)
    random = np.random.default_rng(4)
    prompts = [random.integers(0, 512, length).tolist() for length in [3, PAGE + 9, 1, 20, 7, 2 * PAGE, 5, PAGE - 2, 11]]

    def computed() -> list[Tensor]:
        decoder, sequences = Decoder(model, lookup), [Decoded() for _ in prompts]
        found = [decoder.head(decoder.hidden(list(zip(sequences, prompts, strict=True))))]
        following = np.random.default_rng(5)
        for _ in range(PAGE):
            ids = following.integers(0, 512, len(sequences)).tolist()
            found.append(decoder.logits([(each, [token]) for each, token in zip(sequences, ids, strict=True)]))
        return found

    at_first, with_help = word(helper.HELPER, OFFER), computed()
    before = word(helper.HELPER, OFFER)
    monkeypatch.setattr(helper, "FEWEST", 1000)
    assert all(torch.equal(one, other) for one, other in zip(computed(), with_help, strict=True))
    assert at_first < before == word(helper.HELPER, OFFER)
