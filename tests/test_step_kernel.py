"""What is compiled for the rows of a batch equals the torch operations, for batches and for whole sequences."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from runtime.model.attention import Attention, Rotary, rotated
from runtime.model.config import Gate, MemoryConfig, ModelConfig
from runtime.model.feed_forward import FeedForward
from runtime.model.memory import EngramMemory
from runtime.model.norm import RMSNorm
from runtime.model.points import watching
from runtime.model.step_kernel import is_decoded
from tests.batches import in_pieces

PIECES = (30, 1, 4, 1, 5)  # the third one crosses from page to page


def randomised(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)


def rows(x: Tensor, piece: slice) -> Tensor:
    """(1, N, …) The positions of a piece, of every sequence in x (B, T, …)."""
    return x[:, piece].flatten(0, 1)[None].contiguous()


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    streams=st.integers(1, 4),
    half=st.integers(1, 18),
    dilation=st.integers(1, 4),
    kernel=st.integers(1, 4),
    gate=st.sampled_from(["signed_sqrt", "sigmoid"]),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_memory(batch: int, streams: int, half: int, dilation: int, kernel: int, gate: Gate, seed: int) -> None:
    memory = MemoryConfig((0,), 5, dilation, gate=gate, kernel=kernel)
    config = ModelConfig(vocab_size=1, hidden=2 * half, blocks=1, heads=1, ffn=1, memory=memory, streams=streams)
    module = EngramMemory(memory, config.hidden, streams)
    randomised(module, seed)
    generator = torch.Generator().manual_seed(seed)
    states, vectors = (torch.randn(batch, 41, *shape, generator=generator) for shape in ((streams, config.hidden), (5,)))
    pieces = []
    for number, (here, piece) in enumerate(in_pieces(config, batch, PIECES)):
        hidden = rows(states, piece)
        assert is_decoded(hidden)
        operations = watching(module, lambda *_: None) if number == 2 else nullcontext()  # they go on from the kernel's, too
        with operations:
            pieces.append(module(hidden, rows(vectors, piece), here.block(0)).view(batch, -1, streams, config.hidden))
    torch.testing.assert_close(torch.cat(pieces, dim=1), module(states, vectors), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("key_heads", "qk_norm"), [(6, False), (2, False), (3, True)])
@torch.no_grad()
def test_attention(batch: int, key_heads: int, qk_norm: bool) -> None:
    config = ModelConfig(3, hidden=48, blocks=1, heads=6, ffn=8, memory=None, kv_heads=key_heads, qk_norm=qk_norm)
    module = Attention(config, Rotary(config.head_dim, config.rope_base))
    randomised(module, batch)
    x = torch.randn(batch, 41, 48, generator=torch.Generator().manual_seed(key_heads)) / 7
    compiled, operations = [], []
    for here, piece in in_pieces(config, batch, PIECES):
        compiled.append(module(rows(x, piece), here.block(0)).view(batch, -1, 48))
    for here, piece in in_pieces(config, batch, PIECES):
        with torch.enable_grad():
            operations.append(module(rows(x, piece), here.block(0)).detach().view(batch, -1, 48))
    whole = module(x, None)
    torch.testing.assert_close(torch.cat(operations, dim=1), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(compiled, dim=1), whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rotations_go_on_beyond_the_first_tables() -> None:
    x = torch.randn(1, 700, 2, 6)
    together = rotated(x, *(table[:700] for table in Rotary(6, 100.0).tables(700)))
    grown = Rotary(6, 100.0)
    grown.tables(600)
    apart = torch.cat([rotated(x[:, t : t + 1], *(table[[t]] for table in grown.tables(t + 1))) for t in range(0, 700, 99)], 1)
    torch.testing.assert_close(apart, together[:, ::99], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_norm() -> None:
    norm = RMSNorm(19)
    randomised(norm, 0)
    for x in (torch.randn(4, 1, 19), 1e-4 * torch.randn(2, 3, 19), torch.zeros(2, 1, 19)):
        assert is_decoded(x)
        torch.testing.assert_close(norm(x), functional.rms_norm(x, (19,), norm.weight, norm.eps))


@torch.no_grad()
def test_feed_forward() -> None:
    module, x = FeedForward(6, 13), 9 * torch.randn(2, 7, 6)
    randomised(module, 3)
    gate, up = functional.linear(x, module.gate_up.weight).chunk(2, dim=-1)
    torch.testing.assert_close(module(x), module.down(functional.silu(gate) * up), rtol=1e-4, atol=1e-4)


def test_what_compiled_code_cannot_take_goes_the_other_way() -> None:
    x = torch.zeros(1, 1, 4)
    assert not is_decoded(x), "gradients may be wanted"
    with torch.no_grad():
        assert is_decoded(x)
        assert not is_decoded(x.double())
        assert not is_decoded(torch.zeros(2, 1, 8)[:, :, ::2])
