"""What is compiled for one position equals the torch operations for any number of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from runtime.model.attention import Attention, Rotary
from runtime.model.cache import BlockCache
from runtime.model.config import Gate, MemoryConfig, ModelConfig
from runtime.model.memory import EngramMemory
from runtime.model.norm import RMSNorm
from runtime.model.step_kernel import is_step

NO_MEMORY = MemoryConfig((), width=1, dilation=3)


def randomised(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    streams=st.integers(1, 4),
    hidden=st.integers(1, 37),
    dilation=st.integers(1, 4),
    kernel=st.integers(1, 4),
    gate=st.sampled_from(["signed_sqrt", "sigmoid"]),
    seed=st.integers(0, 1000),
)
@torch.inference_mode()
def test_memory(batch: int, streams: int, hidden: int, dilation: int, kernel: int, gate: Gate, seed: int) -> None:
    config = MemoryConfig((0,), 5, dilation, gate=gate, kernel=kernel)
    module = EngramMemory(config, hidden, streams)
    randomised(module, seed)
    generator = torch.Generator().manual_seed(seed)
    states, vectors = (torch.randn(batch, 9, *shape, generator=generator) for shape in ((streams, hidden), (5,)))
    whole, cache = module(states, vectors), BlockCache()
    first = 3  # positions at once, so that the kernel goes on from what the operations left
    pieces = [module(states[:, :first], vectors[:, :first], cache)]
    for t in range(first, 9):
        here = states[:, t : t + 1].contiguous()
        assert is_step(here)
        pieces.append(module(here, vectors[:, t : t + 1], cache))
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [0, 1, 4])
@pytest.mark.parametrize("batch", [1, 3])
@torch.inference_mode()
def test_attention(batch: int, first: int) -> None:
    config = ModelConfig(vocab_size=3, hidden=24, blocks=1, heads=3, ffn=8, memory=NO_MEMORY)
    module = Attention(config, Rotary(config.head_dim, config.rope_base))
    x = torch.randn(batch, 12, 24, generator=torch.Generator().manual_seed(first))
    whole, cache = module(x, None), BlockCache()
    pieces = [module(x[:, :first], cache)] if first else []
    pieces += [module(x[:, t : t + 1].contiguous(), cache) for t in range(first, 12)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_rotations_go_on_beyond_the_first_tables() -> None:
    rotary, x = Rotary(6, 100.0), torch.randn(1, 700, 2, 6)
    together = rotary.rotated(x, 0)
    apart = torch.cat([Rotary(6, 100.0).rotated(x[:, t : t + 1], t) for t in range(0, 700, 99)], dim=1)
    torch.testing.assert_close(apart, together[:, ::99], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_norm() -> None:
    norm = RMSNorm(19)
    randomised(norm, 0)
    for x in (torch.randn(4, 1, 19), 1e-4 * torch.randn(4, 1, 19), torch.zeros(2, 1, 19)):
        assert is_step(x)
        torch.testing.assert_close(norm(x), norm(x.expand(-1, 2, -1))[:, :1])


def test_what_compiled_code_cannot_take_goes_the_other_way() -> None:
    x = torch.zeros(1, 1, 4)
    assert not is_step(x), "gradients may be wanted"
    with torch.no_grad():
        assert is_step(x)
        assert not is_step(torch.zeros(1, 2, 4))
        assert not is_step(x.double())
        assert not is_step(torch.zeros(2, 1, 8)[:, :, ::2])
