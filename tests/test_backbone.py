"""The backbone against other people's modules (tests/golden/PROVENANCE.md), and against itself in its simplest form."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from hashing.base.errors import EngramError
from runtime.config import Optimizer, Recipe
from runtime.inspect.probes.block_states import block_states
from runtime.model.config import MemoryConfig, ModelConfig
from runtime.model.experts import MixtureOfExperts
from runtime.model.language_model import LanguageModel
from runtime.model.streams import StreamHead, StreamSite, balanced
from runtime.train.optimisers import backbone_optimizer, parameter_groups
from tests.batches import in_pieces

GOLDEN = Path(__file__).parent / "golden"
PLAIN = ModelConfig(vocab_size=31, hidden=16, blocks=3, heads=4, ffn=24, memory=MemoryConfig((1,), width=8, dilation=2))
DENSE_FORMS = {
    "grouped queries": replace(PLAIN, kv_heads=2),
    "normalised queries": replace(PLAIN, qk_norm=True),
    "four streams": replace(PLAIN, streams=4),
    "a single pass": replace(PLAIN, streams=3, stream_form="single_pass"),
}
EXPERTS = replace(PLAIN, experts=5, experts_per_token=2, expert_ffn=8)
FORMS = {
    **DENSE_FORMS,
    "experts": EXPERTS,
    "all of it": replace(EXPERTS, kv_heads=1, qk_norm=True, streams=2, tied=True),
}


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = GOLDEN / f"{name}.safetensors"
    data = load_file(path)
    assert len(data) > 15
    with safe_open(path, "pt") as file:
        return data, file.metadata()


def close(found: Tensor | None, expected: Tensor, name: str) -> None:
    assert found is not None, name
    torch.testing.assert_close(found.detach().reshape(expected.shape), expected, atol=1e-5, rtol=1e-5, msg=name)


def test_hyper_connections_equal_the_reference_with_every_gradient() -> None:
    data, facts = golden("hyper_connections")
    assert (facts["eps"], facts["sinkhorn_iterations"]) == ("1e-6", "20")
    streams = data["input/streams"].requires_grad_()
    site, head = StreamSite(4, 24, "v4"), StreamHead(4, 24)
    parameters = {"fn": site.mapping, "base": site.base, "scale": site.scale}
    parameters |= {"head_fn": head.mapping, "head_base": head.base, "head_scale": head.scale}
    for name, parameter in parameters.items():
        parameter.data = data[f"param/{name}"].clone()
    read: list[Tensor] = []

    def sub_layer(x: Tensor) -> Tensor:
        read.append(x)
        return torch.tanh(x @ data["param/sublayer"])

    after, _ = site(streams, None, sub_layer)
    output = head(after)
    output.backward(data["input/output_gradient"])

    _, post, comb = site.weights(streams)
    found = {"collapsed": read[0], "post": post, "comb": comb, "streams": after, "head": output}
    for name, value in found.items():
        close(value, data[f"output/{name}"], name)
    close(streams.grad, data["grad/streams"], "grad/streams")
    for name, parameter in parameters.items():
        close(parameter.grad, data[f"grad/{name}"], f"grad/{name}")


def test_experts_equal_the_reference_with_every_gradient() -> None:
    data, facts = golden("mixture_of_experts")
    shape = {"experts": 8, "experts_per_token": int(facts["top_k"]), "shared_experts": 2, "expert_ffn": 16}
    config = replace(PLAIN, hidden=24, **shape, router_scale=float(facts["routed_scaling_factor"]))
    module = MixtureOfExperts(config)
    assert module.shared is not None
    parameters = {
        "gate.weight": module.router,
        "experts.gate_up_proj": module.experts.gate_up,
        "experts.down_proj": module.experts.down,
        "shared_experts.down_proj.weight": module.shared.down.weight,
    }
    for name, parameter in parameters.items():
        parameter.data = data[f"param/{name}"].clone()
    halves = [f"shared_experts.{part}_proj.weight" for part in ("gate", "up")]
    module.shared.gate_up.weight.data = torch.cat([data[f"param/{half}"] for half in halves])
    module.bias.copy_(data["param/correction_bias"])
    hidden = data["input/hidden"].requires_grad_()

    output = module(hidden)
    output.backward(data["input/output_gradient"])

    chosen, _ = module.route(hidden.flatten(0, 1))
    assert torch.equal(chosen.sort(-1).values, data["output/experts"].sort(-1).values)
    close(output, data["output/hidden"], "output")
    close(hidden.grad, data["grad/hidden"], "grad/hidden")
    for name, parameter in parameters.items():
        close(parameter.grad, data[f"grad/{name}"], f"grad/{name}")
    close(module.shared.gate_up.weight.grad, torch.cat([data[f"grad/{half}"] for half in halves]), "grad/shared gate and up")


def test_experts_equal_a_loop_over_tokens() -> None:
    torch.manual_seed(0)
    module = drawn(replace(EXPERTS, shared_experts=0, router_scale=1.5)).blocks[1].ffn
    assert isinstance(module, MixtureOfExperts)
    module.bias.uniform_(-0.3, 0.3)
    x = torch.randn(2, 9, 16)
    expected = torch.zeros_like(x)
    for place in [(b, t) for b in range(2) for t in range(9)]:
        scores = torch.sigmoid(module.router @ x[place])
        best = sorted(range(5), key=lambda i: -(scores[i] + module.bias[i]).item())[:2]
        for i in best:
            gate, up = (module.experts.gate_up[i] @ x[place]).chunk(2)
            weight = 1.5 * scores[i] / (scores[best[0]] + scores[best[1]])
            expected[place] += weight * (module.experts.down[i] @ (torch.nn.functional.silu(gate) * up))
    torch.testing.assert_close(module(x), expected)


def test_the_bias_moves_towards_experts_with_few_tokens() -> None:
    module = drawn(EXPERTS).blocks[2].ffn
    assert isinstance(module, MixtureOfExperts)
    bias = torch.zeros(5)
    for _ in range(3):
        x = torch.randn(1, 30, 16)
        load = torch.zeros(5)
        for token in module.route(x[0])[0].flatten().tolist():
            load[token] += 1
        bias += 0.01 * torch.sign(load.mean() - load)
        module(x)
        module.balance(0.01)
    assert bias.any()
    torch.testing.assert_close(module.bias, bias)
    with torch.no_grad():
        module(torch.randn(1, 30, 16))
    assert not module.load.any(), "what is only read moves nothing"


def test_the_streams_are_mixed_by_rows_and_columns_that_sum_to_one() -> None:
    mixing = balanced(torch.rand(50, 4, 4).softmax(-1))
    torch.testing.assert_close(mixing.sum(-1), torch.ones(50, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(mixing.sum(-2), torch.ones(50, 4), atol=1e-4, rtol=0)


def drawn(config: ModelConfig) -> LanguageModel:
    """A model whose every parameter counts: gains, bases and the convolution are drawn too."""
    torch.manual_seed(1)
    model = LanguageModel(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def vectors_of(config: ModelConfig, length: int) -> Tensor:
    assert config.memory is not None
    return torch.randn(2, length, config.memory.width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("form", FORMS)
def test_a_position_reads_nothing_that_follows_it(form: str) -> None:
    model, ids = drawn(FORMS[form]).eval(), torch.arange(22).view(2, 11)
    vectors = vectors_of(FORMS[form], 11)
    whole = model.logits(ids, lambda _: vectors)
    changed = ids.clone()
    changed[:, 7:] += 1
    other = model.logits(changed, lambda _: vectors)
    torch.testing.assert_close(other[:, :7], whole[:, :7])
    assert (other[:, 7:] != whole[:, 7:]).any()


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_decoding_in_pieces_gives_what_the_whole_sequence_does(form: str) -> None:
    model, ids = drawn(FORMS[form]).eval(), torch.arange(22).view(2, 11)
    vectors = vectors_of(FORMS[form], 11)
    whole = model.logits(ids, lambda _: vectors)
    pieces = []
    for batch, piece in in_pieces(model.config, 2, (4, 1, 1, 3, 1, 1)):
        part = vectors[:, piece].reshape(1, -1, vectors.shape[-1])
        logits = model.head(model(ids[:, piece].reshape(1, -1), lambda _, part=part: part, batch))
        pieces.append(logits.view(2, -1, logits.shape[-1]))
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_has_a_role_and_learns(form: str, optimizer: Optimizer) -> None:
    torch.manual_seed(3)
    config = FORMS[form]
    model = LanguageModel(config)
    steps = backbone_optimizer(model, Recipe(steps=1, batch=1, length=1, learning_rate=3e-3, optimizer=optimizer))
    groups = parameter_groups(model)
    assert sum(map(len, groups)) == len(list(model.parameters()))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    ids, vectors = torch.randint(0, 31, (2, 24), generator=torch.Generator().manual_seed(4)), vectors_of(config, 23)
    losses = []
    for _ in range(12):
        loss = model.loss(ids[:, :-1], ids[:, 1:], lambda _: vectors)
        loss.backward()
        steps.step()
        steps.zero_grad()
        model.balance_experts(1e-3)
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2
    still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


@pytest.mark.parametrize("form", ["v4", "single_pass"])
def test_several_streams_begin_as_one(form: str) -> None:
    """At bases of 0 and small maps every stream takes the sub-layer's output once, and the mean of the streams."""
    torch.manual_seed(5)
    config = replace(PLAIN, memory=None, streams=4, stream_form=form)
    several = LanguageModel(config)
    single = LanguageModel(replace(config, streams=1))
    single.load_state_dict({name: t for name, t in several.state_dict().items() if name in single.state_dict()})
    for module in several.modules():
        if isinstance(module, StreamSite | StreamHead):
            module.mapping.data.zero_()
    ids = torch.arange(12).view(1, 12)
    torch.testing.assert_close(several.logits(ids, None), single.logits(ids, None), atol=2e-3, rtol=0)


def test_a_single_stream_has_no_map_and_adds() -> None:
    model = LanguageModel(PLAIN)
    assert not [module for module in model.modules() if isinstance(module, StreamSite | StreamHead)]
    x, block = torch.randn(1, 5, 16), model.blocks[0]
    middle = x + block.attention(block.attention_norm(x), None)
    assert torch.equal(block(x, None, None, None)[0], middle + block.ffn(block.ffn_norm(middle)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kv_heads": 3}, "4 heads do not share 3"),
        ({"streams": 0}, "at least one residual stream"),
        ({"experts": 2, "experts_per_token": 3}, "3 experts per token are not 1 to 2"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(EngramError, match=message):
        replace(PLAIN, **wrong)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_the_states_between_blocks_lead_to_the_models_end(form: str) -> None:
    model, ids = drawn(FORMS[form]).eval(), torch.arange(22).view(2, 11)
    vectors = vectors_of(FORMS[form], 11)
    states = block_states(model, ids, lambda _: vectors)
    assert [state.shape for state in states] == [(2, 11, 16)] * 4
    assert torch.equal(model.head(model.norm(states[-1])), model.logits(ids, lambda _: vectors))
