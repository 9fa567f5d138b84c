"""Gates of published modules, read through the same points as those of a run (tests/golden/PROVENANCE.md)."""

from math import sqrt
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from hashing.base.errors import EngramError
from runtime.model.config import MemoryConfig
from runtime.model.deepseek_memory import DeepseekMemory
from runtime.model.memory import EngramMemory
from runtime.model.points import watching

GOLDEN = Path(__file__).parent / "golden"
DEEPSEEK = GOLDEN / "deepseek_v41_tiny"


def normalised(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).rsqrt() * weight


@torch.no_grad()
@pytest.mark.parametrize("streams", [1, 4])
def test_the_demos_gates_by_its_own_names(streams: int) -> None:
    """Written out from the demo's parameters; what the module then adds is the reference's own output."""
    path = GOLDEN / f"module_demo_hc{streams}.safetensors"
    data = load_file(path)
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    of = {name.removeprefix("param/"): tensor for name, tensor in data.items() if name.startswith("param/")}
    assert len(of) > 8
    module = EngramMemory(MemoryConfig((0,), 24, int(facts["dilation"]), bias=True), int(facts["hidden"]), streams)
    module.load_demo(of)
    hidden = data["input/hidden"]
    vectors = of["multi_head_embedding.embedding.weight"][data["input/head_rows"] + of["head_offsets"]].flatten(2)
    seen: dict[str, Tensor] = {}
    with watching(module, lambda name, value: seen.update({name: value})):
        output = module(hidden, vectors)
    torch.testing.assert_close(output, data["output"], atol=1e-5, rtol=1e-5)
    for m in range(streams):
        key = normalised(vectors @ of[f"key_projs.{m}.weight"].T + of[f"key_projs.{m}.bias"], of[f"norm1.{m}.weight"])
        score = (key * normalised(hidden[:, :, m], of[f"norm2.{m}.weight"])).sum(-1) / sqrt(hidden.shape[-1])
        gate = torch.sigmoid(score.sign() * score.abs().clamp_min(1e-6).sqrt())
        torch.testing.assert_close(seen["memory.gate"][:, :, m, 0], gate, atol=1e-5, rtol=1e-5)
        assert gate.min() < 0.4
        assert gate.max() > 0.6


def deepseek_layer(layer: int) -> tuple[DeepseekMemory, dict[str, Tensor]]:
    """The module of a layer, and what is expected of it."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(DEEPSEEK.glob("model-*.safetensors")):
        tensors |= load_file(path)
    prefix = f"layers.{layer}.engram."
    module = DeepseekMemory(width=384, hidden=32, streams=4)
    module.load_published({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    expected = load_file(DEEPSEEK / "expected.safetensors")
    own = {name.removeprefix(f"layer_{layer}/"): t for name, t in expected.items() if name.startswith(f"layer_{layer}/")}
    return module, own | {"dead": expected["token_mask"] == 0}


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 14])
def test_deepseeks_gates_and_output(layer: int) -> None:
    module, expected = deepseek_layer(layer)
    seen: dict[str, Tensor] = {}
    with watching(module, lambda name, value: seen.update({name: value})):
        added = module(expected["hidden"], expected["memory"].flatten(2), dead=expected["dead"])
    torch.testing.assert_close(seen["memory.gate"].squeeze(-1), expected["gate"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(expected["hidden"] + added, expected["output"], atol=1e-5, rtol=1e-5)
    assert expected["dead"].sum() == 2
    assert (seen["memory.gate"][expected["dead"]] == 0).all()
    assert (seen["memory.gate"][~expected["dead"]] > 0).all()


@torch.no_grad()
def test_a_score_of_zero_is_a_thousandth_by_its_sign_bit() -> None:
    module = DeepseekMemory(width=384, hidden=32, streams=4)
    gates = module._gate(torch.tensor([0.0, -0.0]))
    torch.testing.assert_close(torch.logit(gates), torch.tensor([1e-3, -1e-3]), atol=1e-6, rtol=0)


def test_tensors_that_are_missing_or_do_not_fit_are_named() -> None:
    module = DeepseekMemory(width=384, hidden=32, streams=4)
    with pytest.raises(EngramError, match=r"lack wkv\.scale, k_weight"):
        module.load_published({"wkv.weight": torch.ones(1), "q_weight": torch.ones(1)})
    sizes = {"wkv.weight": (160, 384), "wkv.scale": (5, 12), "q_weight": (4, 32), "k_weight": (3, 32)}
    with pytest.raises(EngramError, match=r"key_norm has shape \(3, 32\), expected \(4, 32\)"):
        module.load_published({name: torch.ones(size) for name, size in sizes.items()})
