"""The memory module against the reference module's own forward and backward (tests/golden/PROVENANCE.md)."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from runtime.model.config import MemoryConfig, ModelConfig
from runtime.model.memory import EngramMemory
from runtime.model.points import watching
from tests.batches import in_pieces

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("streams", [1, 4])
def test_forward_and_every_gradient_equal_the_reference(streams: int) -> None:
    path = GOLDEN / f"module_demo_hc{streams}.safetensors"
    data = load_file(path)
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    parameters = {name.removeprefix("param/"): t for name, t in data.items() if name.startswith("param/")}
    assert len(parameters) > 8
    module = EngramMemory(
        MemoryConfig(layers=(0,), width=24, dilation=int(facts["dilation"]), bias=True), int(facts["hidden"]), streams
    )
    module.load_demo(parameters)
    table = parameters["multi_head_embedding.embedding.weight"].requires_grad_()
    hidden = data["input/hidden"].requires_grad_()
    vectors = table[data["input/head_rows"] + parameters["head_offsets"]].flatten(2)

    output = module(hidden, vectors)
    output.backward(data["grad/output"])

    def close(found: torch.Tensor | None, name: str) -> None:
        assert found is not None
        torch.testing.assert_close(found.reshape(data[name].shape), data[name], atol=1e-5, rtol=1e-5, msg=name)

    close(output.detach(), "output")
    close(hidden.grad, "grad/hidden")
    close(table.grad, "grad/param/multi_head_embedding.embedding.weight")
    streams_of = {"weight": module.projection.weight.grad, "bias": module.projection.bias.grad}
    for kind, gradient in streams_of.items():
        assert gradient is not None
        for name, part in zip(
            [*(f"key_projs.{m}" for m in range(streams)), "value_proj"], gradient.chunk(streams + 1), strict=True
        ):
            close(part, f"grad/param/{name}.{kind}")
    for m in range(streams):
        for name, parameter in (
            ("norm1", module.key_norm),
            ("norm2", module.query_norm),
            ("short_conv.norms", module.conv_norm),
        ):
            assert parameter.grad is not None
            close(parameter.grad[m], f"grad/param/{name}.{m}.weight")
    close(module.conv.grad, "grad/param/short_conv.conv.weight")


@pytest.mark.parametrize("split", [1, 4, 9, 12])
def test_a_sequence_in_two_pieces_gives_what_the_whole_gives(split: int) -> None:
    torch.manual_seed(0)
    module = EngramMemory(MemoryConfig((0,), width=6, dilation=3, conv_zero_init=False), hidden=8, streams=2)
    hidden, vectors = torch.randn(2, 13, 2, 8), torch.randn(2, 13, 6)
    shapes = ModelConfig(1, hidden=8, blocks=1, heads=1, ffn=1, memory=module.config, streams=2)
    pieces = [
        module(*(x[:, piece].flatten(0, 1)[None] for x in (hidden, vectors)), batch.block(0)).view(2, -1, 2, 8)
        for batch, piece in in_pieces(shapes, 2, (split, 13 - split))
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), module(hidden, vectors))


def seen(module: EngramMemory, hidden: torch.Tensor, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """The values at the module's named points."""
    values: dict[str, torch.Tensor] = {}
    with watching(module, lambda name, value: values.update({name.removeprefix("memory."): value})):
        module(hidden, vectors)
    return values


def test_paper_gate_is_the_plain_sigmoid() -> None:
    torch.manual_seed(0)
    hidden, vectors = torch.randn(1, 5, 1, 8), torch.randn(1, 5, 6)
    signed = EngramMemory(MemoryConfig((0,), width=6, dilation=3), hidden=8)
    paper = EngramMemory(MemoryConfig((0,), width=6, dilation=3, gate="sigmoid"), hidden=8)
    paper.load_state_dict(signed.state_dict())
    score = torch.logit(seen(paper, hidden, vectors)["gate"])
    torch.testing.assert_close(torch.logit(seen(signed, hidden, vectors)["gate"]), score.sign() * score.abs().sqrt())


def test_without_convolution_or_with_one_of_zeros_the_output_is_the_gated_value() -> None:
    torch.manual_seed(0)
    hidden, vectors = torch.randn(1, 5, 1, 8), torch.randn(1, 5, 6)
    module = EngramMemory(MemoryConfig((0,), width=6, dilation=3), hidden=8)
    points = seen(module, hidden, vectors)
    torch.testing.assert_close(points["out"], points["gate"] * points["value"])
    plain = EngramMemory(MemoryConfig((0,), width=6, dilation=3, conv=False), hidden=8)
    plain.load_state_dict({name: t for name, t in module.state_dict().items() if "conv" not in name})
    torch.testing.assert_close(plain(hidden, vectors), points["out"])
