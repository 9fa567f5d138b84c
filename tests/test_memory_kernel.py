"""The memory compiled for training equals the same module in float64, which takes the torch operations."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runtime.model.config import Gate, MemoryConfig
from runtime.model.memory import EngramMemory
from runtime.model.memory_kernel import is_trained

Made = tuple[Tensor, dict[str, Tensor]]


def made(module: EngramMemory, hidden: Tensor, vectors: Tensor, direction: Tensor) -> Made:
    """The output, and every gradient along a direction, by the module's dtype."""
    dtype = module.projection.weight.dtype
    given = {name: tensor.to(dtype, copy=True).requires_grad_() for name, tensor in (("hidden", hidden), ("vectors", vectors))}
    assert is_trained(given["hidden"]) == (dtype == torch.float32)
    out = module(*given.values())
    out.backward(direction.to(dtype))
    every = {**given, **dict(module.named_parameters())}
    gradients = {name: tensor.grad for name, tensor in every.items() if tensor.grad is not None}
    assert gradients.keys() == every.keys()
    return out.detach(), gradients


def check_same(found: Made, expected: Made) -> None:
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-4, atol=1e-4)
    for name, gradient in expected[1].items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(found[1][name].double(), gradient, rtol=1e-3, atol=1e-4 * max(1.0, size), msg=name)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 5),
    length=st.integers(1, 17),
    streams=st.integers(1, 4),
    hidden=st.integers(1, 37),
    dilation=st.integers(1, 4),
    kernel=st.integers(1, 4),
    conv=st.booleans(),
    gate=st.sampled_from(["signed_sqrt", "sigmoid"]),
    seed=st.integers(0, 1000),
)
def test_output_and_every_gradient(
    batch: int, length: int, streams: int, hidden: int, dilation: int, kernel: int, conv: bool, gate: Gate, seed: int
) -> None:
    config = MemoryConfig((0,), 5, dilation, gate=gate, kernel=kernel, conv=conv)
    module, reference = EngramMemory(config, hidden, streams), EngramMemory(config, hidden, streams).double()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        reference.get_parameter(name).data = parameter.data.double()
    states, direction = (torch.randn(batch, length, streams, hidden, generator=generator) for _ in range(2))
    vectors = torch.randn(batch, length, 5, generator=generator)
    check_same(made(module, states, vectors, direction), made(reference, states, vectors, direction))


def test_a_score_of_zero_and_large_ones_have_the_gradients_of_the_operations() -> None:
    config = MemoryConfig((0,), 5, 3)
    module, reference = EngramMemory(config, 8), EngramMemory(config, 8).double()
    reference.load_state_dict(module.state_dict())
    states = torch.zeros(1, 4, 1, 8)
    states[0, 1], states[0, 2] = 1e4, -1e4
    vectors, direction = torch.randn(1, 4, 5), torch.randn(1, 4, 1, 8)
    check_same(made(module, states, vectors, direction), made(reference, states, vectors, direction))


@pytest.mark.parametrize("threads", [1, 2])
def test_numbers_do_not_depend_on_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = EngramMemory(MemoryConfig((0,), 6, 3, conv_zero_init=False), 16, 2)
    given = torch.randn(7, 9, 2, 16), torch.randn(7, 9, 6), torch.randn(7, 9, 2, 16)
    expected = made(module, *given)
    module.zero_grad()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("runtime.model.memory_kernel.CORES", threads)
    found = made(module, *given)
    assert np.array_equal(found[0], expected[0])
    assert all(torch.equal(found[1][name], gradient) for name, gradient in expected[1].items())


PASSES = """
import hashlib, torch
import numpy as np
from runtime.model.attention import Attention, Rotary
from runtime.model.config import MemoryConfig, ModelConfig
from runtime.model.memory import EngramMemory
from runtime.model.pages import Batch, Pages

torch.manual_seed(0)
config = ModelConfig(1, 48, 1, heads=3, ffn=1, memory=MemoryConfig((0,), 24, 3, conv_zero_init=False), streams=2, qk_norm=True)
module, attention = EngramMemory(config.memory, 48, 2), Attention(config, Rotary(config.head_dim, config.rope_base))
hidden, vectors = torch.randn(4, 30, 2, 48, requires_grad=True), torch.randn(4, 30, 24, requires_grad=True)
found = [out := module(hidden, vectors)]
out.pow(3).sum().backward()
found += [hidden.grad, vectors.grad, *(parameter.grad for parameter in module.parameters())]
with torch.no_grad():
    pages = Pages(config, torch.device("cpu"))
    pages.grow(4)
    for t in range(30):
        batch = Batch(pages, np.arange(4)[:, None], np.arange(4), np.full(4, t)).block(0)
        found += [module(hidden[None, :, t].contiguous(), vectors[None, :, t].contiguous(), batch)]
        found += [attention(hidden[None, :, t, 0].contiguous(), batch)]
print(*(hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest() for tensor in found))
"""


def test_code_compiled_now_computes_what_code_from_the_cache_does(tmp_path: Path) -> None:
    """To the bit: a training whose first process compiled them goes on in another that finds them compiled."""
    cached = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    run = [subprocess.run([sys.executable, "-c", PASSES], env=cached, capture_output=True, text=True) for _ in range(2)]
    assert run[0].returncode == 0, run[0].stderr
    assert list(tmp_path.rglob("*.nbc"))
    assert run[0].stdout == run[1].stdout
