"""Texts continued together are those continued alone, whoever joins, leaves, shares a beginning or has to wait for room."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from runtime.model.pages import PAGE, page_bytes
from runtime.run import Run
from runtime.serve.completion import Completion, Likelihoods, Piece
from runtime.serve.engine import CACHE_TOKENS, Engine, Limits
from runtime.serve.run_generator import RunGenerator
from runtime.serve.sampler import Sampling
from runtime.serve.server import build_app
from tests.commands import ROOT


@pytest.fixture(scope="module")
def generator(trained_run: Run) -> RunGenerator:
    return RunGenerator.load(trained_run, "disk")


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Of many lengths; a third of them begin alike."""
    random = np.random.default_rng(0)
    shared = random.integers(1, 512, 3 * PAGE).tolist()
    free = [random.integers(1, 512, length).tolist() for length in random.integers(1, 150, 24)]
    return free + [shared[: random.integers(1, len(shared))] + random.integers(1, 512, 5).tolist() for _ in range(12)]


def sampling_of(number: int) -> Sampling:
    """Greedy for most, sampled with a seed of its own for every third."""
    return Sampling(max_tokens=5 + number % 30, temperature=0.8 if number % 3 == 0 else 0.0, seed=number)


@pytest.fixture(scope="module")
def alone(generator: RunGenerator, prompts: list[list[int]]) -> list[list[int]]:
    return [list(generator.token_ids(prompt, sampling_of(number))) for number, prompt in enumerate(prompts)]


def together(engine: Engine, completions: list[Completion], random: np.random.Generator) -> dict[Completion, list[int]]:
    """Adds them a few at a time while others go on."""
    found: dict[Completion, list[int]] = {completion: [] for completion in completions}
    waiting = list(completions)
    while waiting or not engine.is_idle:
        for _ in range(int(random.integers(0, 4))):
            if waiting:
                engine.add(waiting.pop(0))
        if not engine.is_idle:
            for completion, piece in engine.step():
                found[completion] += piece.token_ids
    return found


@pytest.mark.parametrize(
    "limits",
    [Limits(), Limits(step_tokens=7), Limits(running=3), Limits(step_tokens=40, cache_bytes=0)],
    ids=["room", "short steps", "few at a time", "hardly any pages"],
)
def test_company_changes_nothing(
    generator: RunGenerator, prompts: list[list[int]], alone: list[list[int]], limits: Limits
) -> None:
    if limits.cache_bytes == 0:  # as many pages as the longest needs, so that completions give theirs back
        limits = replace(limits, cache_bytes=8 * page_bytes(generator.model.config))
    engine, random = generator.engine(limits), np.random.default_rng(limits.step_tokens)
    order = random.permutation(len(prompts)).tolist()
    completions = [Completion.of(prompts[number], sampling_of(number), generator.tokenizer) for number in order]
    found = together(engine, completions, random)
    assert [found[completion] for completion in completions] == [alone[number] for number in order]
    engine.scheduler.prefixes.give_back(10_000)
    assert engine.decoder.pool.free == len(engine.decoder.pool) <= engine.decoder.most_pages


def test_a_server_makes_all_its_pages_at_once(generator: RunGenerator, prompts: list[list[int]]) -> None:
    engine = build_app(generator, "run").state.engine
    pages = engine.decoder.pages
    assert pages.count == engine.decoder.most_pages == CACHE_TOKENS // PAGE
    made = [block.keys.data_ptr() for block in pages.blocks]
    together(engine, [Completion.of(prompt, Sampling(5), generator.tokenizer) for prompt in prompts], np.random.default_rng(0))
    assert [block.keys.data_ptr() for block in pages.blocks] == made


def test_pages_that_are_made_have_their_memory(trained_run: Run) -> None:
    """In a process of its own: in this one memory may have been in use before."""
    measure = (
        "import sys; from pathlib import Path; import torch; from engram_cli.bench.resident import peak_growth\n"
        "from runtime.model.pages import Pages; from runtime.run import Run\n"
        "pages = Pages(Run(Path(sys.argv[1])).config().model, torch.device('cpu'))\n"
        "print(peak_growth(lambda: pages.grow(2000)), pages.nbytes)"
    )
    command = [sys.executable, "-c", measure, str(trained_run.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT, check=True)
    grown, taken = map(int, done.stdout.split())
    assert taken > 5 << 20
    assert 0.9 * taken < grown


def test_a_beginning_that_was_computed_is_not_computed_again(generator: RunGenerator) -> None:
    engine, prompt = generator.engine(), list(range(1, 2 * PAGE + 10))
    texts = []
    for _ in range(2):
        completion = Completion.of(prompt, Sampling(max_tokens=8), generator.tokenizer)
        engine.add(completion)
        (scheduled,) = engine.scheduler.scheduled()
        texts.append((scheduled[1], [piece.token_ids for _ in range(8) for _, piece in engine.step()]))
    (first, tokens), (second, again) = texts
    assert (first, second) == (len(prompt), len(prompt) - 2 * PAGE)
    assert tokens == again


def test_cancelled_completions_leave_at_once_and_others_go_on(generator: RunGenerator, prompts: list[list[int]]) -> None:
    engine = generator.engine(Limits(running=4))
    completions = [Completion.of(prompt, Sampling(max_tokens=12), generator.tokenizer) for prompt in prompts[:8]]
    for completion in completions:
        engine.add(completion)
    found: dict[Completion, list[int]] = {completion: [] for completion in completions}
    for step in range(40):
        if step in (2, 5):
            engine.cancel(completions[step])
        for completion, piece in engine.step() if not engine.is_idle else ():
            found[completion] += piece.token_ids
    expected = [list(generator.token_ids(prompt, Sampling(max_tokens=12))) for prompt in prompts[:8]]
    for number, completion in enumerate(completions):
        assert found[completion] == (expected[number] if number not in (2, 5) else expected[number][: len(found[completion])])
    assert len(found[completions[5]]) < 12


def completed(engine: Engine, completion: Completion) -> list[Piece]:
    engine.add(completion)
    pieces = []
    while not engine.is_idle:
        pieces += [piece for _, piece in engine.step()]
    return pieces


@pytest.mark.parametrize("step_tokens", [4, 512])
def test_likelihoods_are_the_model_s_own(generator: RunGenerator, step_tokens: int) -> None:
    prompt = generator.encode("def parse(self, name):\n    return name\n")
    completion = Completion.of(prompt, Sampling(max_tokens=6, temperature=1.5, seed=1), generator.tokenizer)
    completion.likeliest, completion.of_prompt = 3, True
    pieces = completed(generator.engine(Limits(step_tokens=step_tokens)), completion)
    logits = generator.sequence().feed_all(completion.token_ids).log_softmax(-1)
    found: list[Likelihoods] = [*completion.prompt_likelihoods, *(each for piece in pieces for each in piece.likelihoods)]
    assert len(found) == len(completion.token_ids) - 1
    for place, each in enumerate(found):
        assert each.own == pytest.approx(float(logits[place, completion.token_ids[place + 1]]), abs=1e-5)
        values, ids = logits[place].topk(3)
        assert [token for token, _ in each.likeliest] == ids.tolist()
        torch.testing.assert_close(torch.tensor([value for _, value in each.likeliest]), values)


def test_joined_pieces_have_the_text_that_one_token_at_a_time_has(generator: RunGenerator) -> None:
    prompt = generator.encode("def naïve(")
    one, some = (Completion.of(prompt, Sampling(max_tokens=20), generator.tokenizer) for _ in range(2))
    ids = [*generator.tokenizer.encode("é 😀 naïve\n").ids, *generator.token_ids(prompt, Sampling(max_tokens=20))][:20]
    pieces = [Piece("", (token,)) for token in ids]
    expected = "".join(one.joined([piece]).text for piece in pieces)
    found = [some.joined(pieces[first : first + 7]) for first in range(0, 20, 7)]
    assert "".join(piece.text for piece in found) == expected
    assert "é 😀 naïve" in expected
    assert [token for piece in found for token in piece.token_ids] == ids


def test_the_last_token_may_end_a_stop_string(generator: RunGenerator) -> None:
    """Then it is that, and not the number of tokens, that ended the text."""
    prompt = generator.encode("def ")
    free = "".join(text for text, _ in generator.text(prompt, Sampling(max_tokens=9)))
    for count, reason, expected in ((9, "stop", ""), (8, "length", free[:-1])):
        completion = Completion.of(prompt, Sampling(max_tokens=count, stop=(free,)), generator.tokenizer)
        pieces = completed(generator.engine(), completion)
        assert [piece.finish_reason for piece in pieces] == [None] * (count - 1) + [reason]
        assert "".join(piece.text for piece in pieces) in expected


def test_a_completion_without_finite_logits_ends_alone(generator: RunGenerator) -> None:
    engine = generator.engine()
    lost, other = (
        Completion.of(generator.encode(text), Sampling(max_tokens=5), generator.tokenizer) for text in ("def a", "x = 1\ny")
    )
    engine.add(lost)
    engine.add(other)
    engine.step()
    with torch.inference_mode():
        for block in engine.decoder.pages.blocks:
            block.values[lost.decoded.pages] = torch.nan
    found = {completion: [piece] for completion, piece in engine.step()}
    while not engine.is_idle:
        for completion, piece in engine.step():
            found[completion].append(piece)
    assert [piece.finish_reason for piece in found[lost]] == ["error"]
    expected = list(generator.token_ids(other.token_ids[: other.prompt_tokens], Sampling(max_tokens=5)))
    assert [token for piece in found[other] for token in piece.token_ids] == expected[1:]
