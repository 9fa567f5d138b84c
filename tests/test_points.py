"""Named points: everything can be seen, anything can be replaced, and nothing stays behind."""

import pytest
import torch
from torch import Tensor

from hashing.base.errors import EngramError
from runtime.model.config import MemoryConfig, ModelConfig
from runtime.model.language_model import LanguageModel
from runtime.model.points import watching
from tests.batches import in_pieces

MEMORY = ("e", "key", "value", "score", "gate", "conv", "out")
TOKENS = torch.tensor([[5, 3, 8, 1, 1, 2]])


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    memory = MemoryConfig((1,), width=6, dilation=3, conv_zero_init=False)
    return LanguageModel(ModelConfig(vocab_size=11, hidden=8, blocks=2, heads=2, ffn=12, memory=memory)).eval()


@pytest.fixture(scope="module")
def vectors() -> Tensor:
    return torch.randn(1, TOKENS.shape[1], 6, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_every_point_is_seen_once_and_watching_changes_no_bit(model: LanguageModel, vectors: Tensor) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []
    plain = model.logits(TOKENS, lambda _: vectors)
    with watching(model, lambda name, value: seen.append((name, tuple(value.shape)))):
        watched = model.logits(TOKENS, lambda _: vectors)
    assert torch.equal(plain, watched)
    names = [name for name, _ in seen]
    blocks = {f"blocks.{i}.{point}" for i in (0, 1) for point in ("in", "attention", "ffn", "out")}
    assert len(names) == len(set(names))
    assert set(names) == blocks | {f"blocks.1.memory.{point}" for point in MEMORY}
    shapes = dict(seen)
    assert shapes["blocks.1.memory.gate"] == shapes["blocks.1.memory.score"] == (1, 6, 1, 1)
    assert shapes["blocks.1.memory.value"] == shapes["blocks.1.memory.out"] == (1, 6, 1, 8)
    assert shapes["blocks.1.memory.e"] == (1, 6, 6)


@torch.no_grad()
def test_a_closed_gate_is_the_memory_suppressed(model: LanguageModel, vectors: Tensor) -> None:
    """The convolution normalises what is not there to zeros, so nothing is added."""
    with watching(model, lambda name, value: torch.zeros_like(value) if name.endswith("gate") else None):
        closed = model.logits(TOKENS, lambda _: vectors)
    assert torch.equal(closed, model.logits(TOKENS, None))
    assert not torch.equal(closed, model.logits(TOKENS, lambda _: vectors))


@torch.no_grad()
def test_what_is_put_in_is_what_goes_on(model: LanguageModel, vectors: Tensor) -> None:
    state = torch.ones(1, TOKENS.shape[1], 8)
    with watching(model, lambda name, _: state if name == "blocks.1.out" else None):
        logits = model.logits(TOKENS, lambda _: vectors)
    torch.testing.assert_close(logits, model.head(model.norm(state)))


def test_a_replacement_of_another_shape_names_the_point_and_nothing_stays(model: LanguageModel, vectors: Tensor) -> None:
    with (
        pytest.raises(EngramError, match=r"blocks\.0\.ffn has shape \(2,\), expected \(1, 6, 8\)"),
        watching(model, lambda name, _: torch.zeros(2) if name.endswith("ffn") else None),
    ):
        model.logits(TOKENS, lambda _: vectors)
    model.logits(TOKENS, lambda _: vectors)


@torch.no_grad()
def test_decoding_is_watched_too(model: LanguageModel, vectors: Tensor) -> None:
    """One position at a time, where an unwatched memory is computed by a compiled kernel."""
    gates: list[Tensor] = []
    watch = lambda name, value: gates.append(value) if name.endswith("gate") else None  # noqa: E731
    for batch, here in in_pieces(model.config, 1, [1] * TOKENS.shape[1]):
        with watching(model, watch):
            model(TOKENS[:, here], lambda _, here=here: vectors[:, here], batch)
    assert len(gates) == TOKENS.shape[1]


@torch.no_grad()
def test_points_survive_compilation(model: LanguageModel, vectors: Tensor) -> None:
    """Unwatched, the model is one graph; watched, the compiled model shows the same values."""
    torch._dynamo.reset()
    compiled = torch.compile(model.blocks[1], backend="eager", fullgraph=True)
    x = torch.randn(1, 6, 8)
    assert torch.equal(compiled(x, None, vectors, None)[0], model.blocks[1](x, None, vectors, None)[0])
    seen: dict[str, Tensor] = {}
    with watching(model, lambda name, value: seen.update({name: value})):
        torch.compile(model.blocks[1], backend="eager")(x, None, vectors, None)
    assert "blocks.1.memory.gate" in seen
