"""Sampling draws from the distribution that `transformers`' formulas give, written out here in plain numbers."""

from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hashing.base.errors import UsageError
from runtime.run import Run
from runtime.serve.run_generator import RunGenerator
from runtime.serve.sampler import Sampler, Sampling
from tests.commands import document, engram, refused

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -3.0]


def penalised(logits: list[float], seen: set[int], penalty: float) -> list[float]:
    """`RepetitionPenaltyLogitsProcessor`: score = where(score < 0, score * penalty, score / penalty) at the input's ids."""
    return [x if i not in seen else x * penalty if x < 0 else x / penalty for i, x in enumerate(logits)]


def softmax(logits: list[float]) -> list[float]:
    weights = [np.exp(x) for x in logits]
    return [w / sum(weights) for w in weights]


def min_p_kept(probabilities: list[float], min_p: float) -> set[int]:
    """`MinPLogitsWarper`: tokens_to_remove = probs < min_p * top_probs."""
    return {i for i, p in enumerate(probabilities) if not p < min_p * max(probabilities)}


def top_p_kept(probabilities: list[float], top_p: float) -> set[int]:
    """`TopPLogitsWarper`: from the least likely on, tokens whose cumulated probability is at most 1 - top_p are removed."""
    ascending, cumulated, removed = np.argsort(probabilities), 0.0, set()
    for i in ascending[:-1]:
        cumulated += probabilities[i]
        if cumulated <= 1 - top_p:
            removed.add(int(i))
    return set(range(len(probabilities))) - removed


def expected(seen: set[int], temperature: float, penalty: float, min_p: float, top_p: float) -> list[float]:
    """The distribution after penalty, temperature, min-p and top-p, each on what the one before left."""
    probabilities = softmax([x / temperature for x in penalised(LOGITS, seen, penalty)])
    for keep in (lambda p: min_p_kept(p, min_p), lambda p: top_p_kept(p, top_p)):
        kept = keep(probabilities)
        total = sum(probabilities[i] for i in kept)
        probabilities = [p / total if i in kept else 0.0 for i, p in enumerate(probabilities)]
    return probabilities


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
@pytest.mark.parametrize(
    ("seen", "penalty", "min_p", "top_p"),
    [
        (set(), 1.0, 0.0, 1.0),
        ({0, 4}, 1.8, 0.0, 1.0),
        ({0, 5}, 0.5, 0.0, 1.0),
        (set(), 1.0, 0.3, 1.0),
        (set(), 1.0, 1.0, 1.0),
        (set(), 1.0, 0.0, 0.6),
        ({1}, 1.3, 0.1, 0.83),
    ],
)
def test_what_is_drawn_is_what_the_formulas_give(
    seen: set[int], penalty: float, min_p: float, top_p: float, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=3, repetition_penalty=penalty, min_p=min_p)
    sampler, draws = Sampler(sampling), 6000
    drawn = np.bincount([sampler(torch.tensor(LOGITS), seen) for _ in range(draws)], minlength=len(LOGITS)) / draws
    wanted = np.array(expected(seen, temperature, penalty, min_p, top_p))
    assert (drawn[wanted == 0] == 0).all()
    assert np.abs(drawn - wanted).max() < 4.5 * np.sqrt(0.25 / draws)


def test_top_k_and_bias_and_penalties_of_what_was_drawn() -> None:
    """Top-k leaves the likeliest; a bias is added; OpenAI's penalties are subtracted once, and once for each time it came."""
    top = Sampler(Sampling(temperature=5.0, top_k=2, seed=1))
    assert {top(torch.tensor(LOGITS)) for _ in range(100)} == {0, 1}
    assert Sampler(Sampling(logit_bias=((5, 6.0), (0, -3.0))))(torch.tensor(LOGITS)) == 5
    logits = torch.tensor([1.0, 0.5, -5.0])
    presence = Sampler(Sampling(presence_penalty=0.6))
    assert [presence(logits) for _ in range(4)] == [0, 1, 0, 0]
    frequency = Sampler(Sampling(frequency_penalty=0.3))
    assert [frequency(logits) for _ in range(6)] == [0, 0, 1, 0, 1, 0]


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=30, unique=True),
    st.sets(st.integers(0, 29)),
    st.floats(0.1, 10),
)
def test_the_likeliest_token_is_that_after_the_penalty(logits: list[float], seen: set[int], penalty: float) -> None:
    seen = {i for i in seen if i < len(logits)}
    chosen = Sampler(Sampling(repetition_penalty=penalty))(torch.tensor(logits), seen)
    scores = penalised(logits, seen, penalty)
    assert scores[chosen] == max(scores)


def test_what_was_seen_stays_seen() -> None:
    """Of 4 tokens all but one were named at one time or another: with a strong penalty the last remains."""
    sampler = Sampler(Sampling(repetition_penalty=100.0))
    logits = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert [sampler(logits, [0]), sampler(logits, [1]), sampler(logits, [2]), sampler(logits)] == [1, 2, 3, 3]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-6])
def test_a_small_temperature_takes_the_likeliest(temperature: float) -> None:
    sampler = Sampler(Sampling(temperature=temperature, seed=0))
    assert {sampler(torch.tensor(LOGITS)) for _ in range(20)} == {0}


def test_a_large_temperature_takes_any() -> None:
    sampler = Sampler(Sampling(temperature=1e300, seed=0))
    assert {sampler(torch.tensor(LOGITS)) for _ in range(200)} == set(range(6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": inf}, "temperature is inf, expected a finite number of 0 or more"),
        ({"temperature": nan}, "temperature is nan, expected"),
        ({"temperature": -1.0}, "temperature is -1.0, expected"),
        ({"top_p": nan}, "top_p is nan, expected above 0 and at most 1"),
        ({"top_p": 0.0}, "top_p is 0.0, expected"),
        ({"min_p": nan}, "min_p is nan, expected 0 to 1"),
        ({"min_p": 1.5}, "min_p is 1.5, expected"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0, expected a finite number above 0"),
        ({"repetition_penalty": inf}, "repetition_penalty is inf, expected"),
        ({"repetition_penalty": nan}, "repetition_penalty is nan, expected"),
        ({"max_tokens": -1}, "max_tokens is -1, expected 0 or more"),
        ({"top_k": -1}, "top_k is -1, expected 0 or more"),
        ({"presence_penalty": 3.0}, "presence_penalty is 3.0, expected -2 to 2"),
        ({"frequency_penalty": nan}, "frequency_penalty is nan, expected"),
        ({"stop": ("x",) * 17}, "stop is at most 16 strings"),
    ],
)
def test_what_nobody_can_mean_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sampling(**changes)


@pytest.mark.parametrize(
    ("option", "value"), [("temperature", "inf"), ("temperature", "nan"), ("min-p", "2"), ("repetition-penalty", "0")]
)
def test_generate_refuses_it_before_anything_is_loaded(trained_run: Run, option: str, value: str) -> None:
    done = engram("generate", "x", f"--{option}", value, "--run", trained_run.folder)
    refused(done, 2, f"^error: ({option.replace('-', '_')} is |invalid value for '--{option}')")
    assert done.stdout == ""


def test_a_penalty_breaks_a_repetition(trained_run: Run) -> None:
    """Over prompt and completion: with a penalty strong enough no token comes twice, and none of the prompt's."""
    generator = RunGenerator.load(trained_run, "device")
    prompt = generator.encode("def __init__(self")
    free = list(generator.token_ids(prompt, Sampling(max_tokens=40)))
    penalised = list(generator.token_ids(prompt, Sampling(max_tokens=40, repetition_penalty=1000.0)))
    assert len(set(free)) < len(free)
    assert len({*prompt, *penalised}) == len(set(prompt)) + len(penalised)


def test_generating_without_memory_is_the_memory_suppressed(trained_run: Run) -> None:
    generator = RunGenerator.load(trained_run, "device", memory=False)
    ids = generator.encode("def __init__(self, name):")
    with torch.inference_mode():
        suppressed = generator.model.logits(torch.tensor([ids]), None)[0]
    torch.testing.assert_close(generator.sequence().feed_all(ids), suppressed)
    pieces = generator.sequence()
    torch.testing.assert_close(torch.cat([pieces.feed_all(ids[:3]), pieces.feed_all(ids[3:])]), suppressed, atol=1e-4, rtol=0)
    call = ("generate", "def __init__(", "--max-tokens", 20, "--run", trained_run.folder)
    without, with_memory = document(*call, "--no-memory"), document(*call)
    assert without["text"] == "".join(p for p, _ in generator.text(generator.encode("def __init__("), Sampling(max_tokens=20)))
    assert (without["placement"], without["memory_suppressed"]) == (None, True)
    assert (with_memory["placement"], with_memory["memory_suppressed"]) == ("device", False)
    assert "memory suppressed" in engram(*call, "--no-memory").stderr
    refused(engram(*call, "--no-memory", "--offload"), 2, "--no-memory reads no tables.*\nhint: leave one")
