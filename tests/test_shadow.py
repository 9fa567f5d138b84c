"""The shadow check finds nothing where all is right, and a wrong history or a wrong vector at the first step."""

import numpy as np
import pytest
import torch

from runtime.decoder import Decoded
from runtime.run import Run
from runtime.serve.completion import Completion
from runtime.serve.engine import Engine, Limits
from runtime.serve.run_generator import RunGenerator
from runtime.serve.sampler import Sampling
from runtime.serve.shadow import Shadow
from runtime.trained_run import TrainedRun


@pytest.fixture(scope="module", params=["device", "host", "disk"])
def generator(trained_run: Run, request: pytest.FixtureRequest) -> RunGenerator:
    return RunGenerator.load(trained_run, request.param)


def shadowed(trained_run: Run, generator: RunGenerator, every: int = 1) -> tuple[Engine, Shadow]:
    trained = TrainedRun.load(trained_run, torch.device("cpu"))
    assert trained.store is not None
    engine = generator.engine(Limits(step_tokens=50, running=5))
    shadow = Shadow(trained.vocab.canonical, trained.store.spec, trained.tables, every)
    engine.decoder.watch = shadow
    return engine, shadow


def add(engine: Engine, count: int) -> None:
    random = np.random.default_rng(0)
    shared = random.integers(1, 512, 70).tolist()
    for number in range(count):
        prompt = shared[: random.integers(1, 70)] + random.integers(1, 512, number + 1).tolist()
        engine.add(Completion.of(prompt, Sampling(max_tokens=10), engine.tokenizer))


def test_every_step_of_many_completions(trained_run: Run, generator: RunGenerator) -> None:
    engine, shadow = shadowed(trained_run, generator)
    add(engine, 20)
    while not engine.is_idle:
        engine.step()
    assert shadow.checked > 20 * 40
    assert shadow.mismatches == 0


def test_one_step_of_several(trained_run: Run, generator: RunGenerator) -> None:
    engine, shadow = shadowed(trained_run, generator, every=4)
    add(engine, 1)
    for _ in range(7):
        engine.step()
    spec = shadow.spec
    assert (shadow.steps, shadow.checked) == (7, spec.columns * len(spec.layers))


@pytest.mark.parametrize("damage", ["shifted", "from the start"])
def test_a_wrong_history_is_found_at_the_first_step(
    trained_run: Run, generator: RunGenerator, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine, shadow = shadowed(trained_run, generator)
    add(engine, 1)
    engine.step()
    engine.step()
    assert shadow.mismatches == 0
    decoded = engine.scheduler.running[0].decoded
    assert decoded.history is not None
    decoded.history = np.roll(decoded.history, 1) if damage == "shifted" else None
    engine.step()
    assert shadow.mismatches == len(shadow.spec.layers)
    assert "step 3, layer 1: at 1 positions" in caplog.text


def test_a_wrong_vector_is_found(trained_run: Run, generator: RunGenerator) -> None:
    _, shadow = shadowed(trained_run, generator)
    lookup = generator.lookup
    assert lookup is not None
    ids = [5, 6, 7]
    rows = lookup.addressing.addresses(np.array([ids])).rows
    right = lookup.placement.fetch(rows)
    shadow([(Decoded(), ids)], rows, right)
    assert shadow.mismatches == 0

    def wrong(layer: int) -> torch.Tensor:
        vectors = right(layer)
        assert vectors is not None
        changed = vectors.clone()
        changed[0, 1, 0] += 1e-3
        return changed

    shadow([(Decoded(), ids)], rows, wrong)
    assert shadow.mismatches == len(rows)
