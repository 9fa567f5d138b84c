"""Wherever the rows are, 200 prompts that come, go and share beginnings give to the bit what each gives alone."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.decoder import Decoded
from runtime.model.pages import PAGE
from runtime.placement.placement import PlacementName
from runtime.run import Run
from runtime.serve.completion import Completion
from runtime.serve.engine import Limits
from runtime.serve.run_generator import RunGenerator
from runtime.serve.sampler import Sampling

TOKENS = 6


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """A third of them begin alike."""
    random = np.random.default_rng(1)
    shared = random.integers(1, 512, 2 * PAGE + 9).tolist()
    free = [random.integers(1, 512, length).tolist() for length in random.integers(1, 60, 134)]
    return free + [shared[: random.integers(PAGE, len(shared))] + random.integers(1, 512, 3).tolist() for _ in range(66)]


@pytest.fixture(scope="module")
def alone(trained_run: Run, prompts: list[list[int]]) -> tuple[list[list[int]], list[Tensor]]:
    """Greedy token ids of each prompt by itself, and the logits after the first of its tokens."""
    generator = RunGenerator.load(trained_run, "device")
    decoder = generator.decoder(1 << 30)
    texts = [list(generator.token_ids(prompt, Sampling(max_tokens=TOKENS))) for prompt in prompts]
    return texts, [decoder.logits([(Decoded(), prompt)])[0] for prompt in prompts]


@pytest.mark.parametrize(
    ("placement", "cache_bytes"),
    [("device", 0), ("host", 0), ("disk", 0), ("disk", 1 << 14), ("disk", 1 << 28), ("mapped", 0)],
    ids=["device", "host", "disk, one set of rows", "disk, 16 KiB", "disk, all rows", "mapped"],
)
def test_the_same_bits(
    trained_run: Run,
    prompts: list[list[int]],
    alone: tuple[list[list[int]], list[Tensor]],
    placement: PlacementName,
    cache_bytes: int,
) -> None:
    texts, logits = alone
    generator = RunGenerator.load(trained_run, placement, cache_bytes=cache_bytes)
    engine, shadow = generator.engine(Limits(step_tokens=90, running=12)), generator.shadow(1)
    assert shadow is not None
    engine.decoder.watch = shadow
    random = np.random.default_rng(cache_bytes)
    order = random.permutation(len(prompts)).tolist()
    completions = {number: Completion.of(prompts[number], Sampling(max_tokens=TOKENS), engine.tokenizer) for number in order}
    cancelled = {number for number in order if random.random() < 0.15}
    found: dict[Completion, list[int]] = {completion: [] for completion in completions.values()}
    waiting, going = list(order), list[int]()
    while waiting or not engine.is_idle:
        for number in _some(waiting, random):
            engine.add(completions[number])
            going.append(number)
        for number in [each for each in going if each in cancelled and random.random() < 0.2]:
            engine.cancel(completions[number])
            going.remove(number)
        for completion, piece in engine.step() if not engine.is_idle else ():
            found[completion] += piece.token_ids
            if piece.finish_reason:
                going = [number for number in going if completions[number] is not completion]
    for number in order:
        own = found[completions[number]]
        assert own == (texts[number][: len(own)] if number in cancelled else texts[number])
    assert shadow.steps > 40
    assert shadow.checked > 40_000
    assert shadow.mismatches == 0
    decoder = generator.decoder(1 << 30)
    assert all(torch.equal(decoder.logits([(Decoded(), prompts[n])])[0], logits[n]) for n in order[:40])


def _some(waiting: list[int], random: np.random.Generator) -> Sequence[int]:
    """Up to four of those that wait, who wait no longer."""
    count = min(len(waiting), int(random.integers(0, 5)))
    return [waiting.pop() for _ in range(count)]
