"""Decoding in pieces is the whole sequence, wherever the tables live."""

import pytest
import torch

from runtime.model.filled_rows import filled_rows
from runtime.run import Run
from runtime.serve.run_generator import RunGenerator
from runtime.serve.sampler import Sampler, Sampling


@pytest.fixture(scope="module")
def generators(trained_run: Run) -> dict[str, RunGenerator]:
    return {name: RunGenerator.load(trained_run, name) for name in ("device", "host", "disk")}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ids(generators: dict[str, RunGenerator]) -> list[int]:
    found = generators["device"].encode("def __init__(self, name):\n    self.name = name\n\nclass Parser:\n    pass\n" * 2)
    assert len(found) > 40
    return found


@pytest.mark.parametrize("length", range(1, 41))
def test_token_by_token_equals_the_whole(generators: dict[str, RunGenerator], ids: list[int], length: int) -> None:
    prompt = ids[:length]
    whole = generators["device"].sequence().feed_all(prompt)
    decoding = generators["device"].sequence()
    single = torch.stack([decoding.feed([token]) for token in prompt])
    torch.testing.assert_close(single, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("cut", [1, 2, 17, 39])
def test_any_two_pieces_equal_the_whole(generators: dict[str, RunGenerator], ids: list[int], cut: int) -> None:
    whole = generators["device"].sequence().feed_all(ids[:40])
    decoding = generators["device"].sequence()
    pieces = torch.cat([decoding.feed_all(ids[:cut]), decoding.feed_all(ids[cut:40])])
    torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=0)


def test_a_prompt_s_logits_are_computed_for_its_last_position_alone(
    generators: dict[str, RunGenerator], ids: list[int]
) -> None:
    given: list[int] = []
    head = generators["device"].model.head
    handle = head.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0].numel() // head.in_features))
    logits = generators["device"].sequence().feed(ids[:40])
    handle.remove()
    assert given == [filled_rows(1, generators["device"].model.config)]
    torch.testing.assert_close(logits, generators["device"].sequence().feed_all(ids[:40])[-1])


def test_memory_reaches_the_logits(generators: dict[str, RunGenerator], ids: list[int]) -> None:
    """Otherwise everything here would hold for a model that never reads its tables."""
    model = generators["device"].model
    with torch.inference_mode():
        suppressed = model.logits(torch.tensor([ids[:40]]), None)[0]
    assert not torch.allclose(generators["device"].sequence().feed_all(ids[:40]), suppressed, atol=1e-4)


@pytest.mark.parametrize("placement", ["host", "disk"])
def test_logits_and_greedy_text_are_those_of_resident_tables(
    generators: dict[str, RunGenerator], ids: list[int], placement: str
) -> None:
    resident, other = generators["device"].sequence(), generators[placement].sequence()
    assert torch.equal(resident.feed_all(ids[:9]), other.feed_all(ids[:9]))
    assert torch.equal(resident.feed([5]), other.feed([5]))
    sampling = Sampling(max_tokens=40)
    text = ["".join(p for p, _ in generators[name].text(ids[:9], sampling)) for name in ("device", placement)]
    assert text[0] == text[1]
    assert text[0]


def test_text_stops_before_a_stop_string(generators: dict[str, RunGenerator]) -> None:
    generator = generators["device"]
    prompt = generator.encode("def ")
    free = "".join(p for p, _ in generator.text(prompt, Sampling(max_tokens=30)))
    stop = free[len(free) // 2 :][:3]
    cut = "".join(p for p, _ in generator.text(prompt, Sampling(max_tokens=30, stop=(stop,))))
    assert cut == free[: free.index(stop)]


def test_sampling_follows_its_seed_and_its_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    pick = Sampler(Sampling(temperature=1.0, seed=1))
    drawn = torch.bincount(torch.tensor([pick(logits) for _ in range(4000)]), minlength=4) / 4000
    torch.testing.assert_close(drawn, logits.exp(), atol=0.04, rtol=0)
    again = Sampler(Sampling(temperature=1.0, seed=1))
    third = Sampler(Sampling(temperature=1.0, seed=1))
    assert [again(logits) for _ in range(50)] == [third(logits) for _ in range(50)]
    nucleus = Sampler(Sampling(temperature=1.0, top_p=0.6, seed=2))
    assert {nucleus(logits) for _ in range(200)} == {0, 1}
