"""A fact that was planted in a model's text is found again by everything that looks for it."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from runtime.evaluation import WITH_MEMORY, evaluate
from runtime.inspect.lens import ValueLens
from runtime.inspect.probes.ablations import SUPPRESSED, ablated_variants
from runtime.inspect.probes.gate_statistics import JudgedGates
from runtime.inspect.probes.probed_text import Positions
from runtime.inspect.probes.swap import probe_swap
from runtime.run import Run
from runtime.trained_run import TrainedRun
from runtime.windows import Texts
from tests.commands import document
from tests.planted import FACT, NOISE, PHRASE, planted_text, train_planted

LAYER = 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def trained(run: Run) -> TrainedRun:
    return TrainedRun.load(run, torch.device("cpu"))


@pytest.fixture(scope="module")
def windows(run: Run, trained: TrainedRun) -> Texts:
    """Text of the same kind that was not trained on."""
    ids = run.tokenizer().encode(" ".join(planted_text(2000, seed=10_000))).ids
    return Texts([ids[:1000], ids[1000:]], trained.config.recipe.length, trained.vocab.end_of_text_id)


@pytest.fixture(scope="module")
def on_the_phrase(run: Run, trained: TrainedRun, windows: Texts) -> NDArray[np.bool_]:
    """(P,) Which judged positions end the phrase."""
    ngrams = Positions.of(windows, trained.vocab, len(PHRASE)).ngrams
    found: NDArray[np.bool_] = (ngrams == trained.vocab.canonical(np.array(tokens(run, *PHRASE)))).all(1)
    assert found.sum() > 50
    return found


def tokens(run: Run, *words: str) -> list[int]:
    ids: list[int] = run.tokenizer().encode(" ".join(words)).ids
    assert len(ids) == len(words)
    return ids


def lens(trained: TrainedRun, ids: list[int], order: int | None = None) -> dict[int, float]:
    """By token id, what the rows of a phrase's last n-grams, of all orders or of one, push its logit by."""
    lookup = trained.lookup("device")
    assert lookup is not None
    spec = lookup.addressing.spec
    rows = lookup.addressing.addresses(np.array([ids])).rows[LAYER][0, -1].reshape(len(spec.orders), -1)
    chosen = rows if order is None else rows[[spec.orders.index(order)]]
    return dict(enumerate(ValueLens(trained).logits(LAYER, chosen.ravel().tolist()).tolist()))


def test_the_lens_of_the_phrases_rows_names_the_fact(run: Run, trained: TrainedRun) -> None:
    """So do those of the longest order alone: its bigram is followed by other words as often."""
    (fact,) = tokens(run, FACT)
    for order in (None, 3):
        logits = lens(trained, tokens(run, *PHRASE), order)
        first, second = sorted(logits.values(), reverse=True)[:2]
        assert logits[fact] == first
        assert first > 1
        assert first > 2 * second


def test_rows_of_random_ngrams_do_not_say_it(run: Run, trained: TrainedRun) -> None:
    (fact,) = tokens(run, FACT)
    said = lens(trained, tokens(run, *PHRASE))[fact]
    random = np.random.default_rng(0)
    others = [lens(trained, tokens(run, *random.choice(NOISE, 3)))[fact] for _ in range(50)]
    assert max(others) < said / 4
    end_elsewhere = tokens(run, NOISE[3], *PHRASE[1:])
    assert lens(trained, end_elsewhere, order=3)[fact] < said / 4


def test_the_gate_opens_on_it(trained: TrainedRun, windows: Texts, on_the_phrase: NDArray[np.bool_]) -> None:
    gates = JudgedGates.of(trained, windows, lambda _: None).gates[LAYER][:, 0]
    assert gates[on_the_phrase].mean() > gates.mean() + 0.2
    assert gates[on_the_phrase].min() > np.quantile(gates[~on_the_phrase], 0.75)


def test_without_its_order_it_is_lost(trained: TrainedRun, windows: Texts, on_the_phrase: NDArray[np.bool_]) -> None:
    variants = ablated_variants(trained, ["order", SUPPRESSED])
    found = evaluate(trained.model, "float32", trained.lookup("device"), windows, variants, list(variants))
    on_fact = {name: float(nats[on_the_phrase].mean()) for name, nats in found.token_nats.items()}
    elsewhere = {name: float(nats[~on_the_phrase].mean()) for name, nats in found.token_nats.items()}
    assert on_fact[WITH_MEMORY] < 0.2
    assert on_fact["order:3"] > 2
    assert on_fact[SUPPRESSED] > 2
    assert on_fact["order:3"] - on_fact[WITH_MEMORY] > 10 * abs(elsewhere["order:3"] - elsewhere[WITH_MEMORY])


def test_a_swap_moves_it(run: Run, trained: TrainedRun) -> None:
    """The phrase's memory brings the fact to other words, and theirs takes it from the phrase."""
    (fact,) = tokens(run, FACT)
    noise = tokens(run, *NOISE[4:7])
    given = {change.token_id: change for change in probe_swap(trained, noise, tokens(run, *PHRASE)).changes}
    assert given[fact].probability_before < 0.1
    assert given[fact].probability_after > 0.5
    taken = {change.token_id: change for change in probe_swap(trained, tokens(run, *PHRASE), noise).changes}
    assert taken[fact].probability_before > 0.8
    assert taken[fact].probability_after < 0.2


def test_the_command_says_so(run: Run) -> None:
    found = document("probe", "swap", " ".join(NOISE[4:7]), " ".join(PHRASE), "--run", run.folder)
    first = found["changes"][0]
    assert first["token"] == FACT
    assert first["probability_after"] > 0.5
    assert found["kl_nats"] > 1
