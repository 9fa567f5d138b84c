"""Every parameter has one role in the optimiser, by its name and not by its shape; Muon takes fused maps one by one."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from runtime.config import Recipe
from runtime.model.config import MemoryConfig, ModelConfig
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.train.optimisers import backbone_optimizer, map_heights, parameter_groups
from runtime.train.presets import preset

PLAIN = ModelConfig(vocab_size=31, hidden=16, blocks=2, heads=4, ffn=24, memory=MemoryConfig((1,), width=8, dilation=2))
FUSED = replace(PLAIN, kv_heads=2, streams=3, experts=2, expert_ffn=6)
RECIPE = Recipe(steps=1, batch=1, length=1, learning_rate=3e-3, optimizer="muon", weight_decay=0.3)

# Of the second block of FUSED: its maps by the names of the papers, and where each lies in a parameter.
MAPS: dict[str, tuple[str, tuple[slice | int, ...]]] = {
    "query": ("attention.qkv.weight", (slice(0, 16),)),
    "key": ("attention.qkv.weight", (slice(16, 24),)),
    "value": ("attention.qkv.weight", (slice(24, 32),)),
    "out": ("attention.out.weight", ()),
    **{f"gate {expert}": ("ffn.experts.gate_up", (expert, slice(0, 6))) for expert in (0, 1)},
    **{f"up {expert}": ("ffn.experts.gate_up", (expert, slice(6, 12))) for expert in (0, 1)},
    **{f"down {expert}": ("ffn.experts.down", (expert,)) for expert in (0, 1)},
    "shared gate": ("ffn.shared.gate_up.weight", (slice(0, 6),)),
    "shared up": ("ffn.shared.gate_up.weight", (slice(6, 12),)),
    "shared down": ("ffn.shared.down.weight", ()),
    **{f"memory key {stream}": ("memory.projection.weight", (slice(16 * stream, 16 * stream + 16),)) for stream in (0, 1, 2)},
    "memory value": ("memory.projection.weight", (slice(48, 64),)),
}


@pytest.mark.parametrize("name", ["nano", "tiny"])
def test_matrices_decay_and_gains_do_not(trained_run: Run, name: str) -> None:
    model = LanguageModel(preset(name, trained_run.vocab(), "float32").model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = ({names[id(parameter)] for parameter in group} for group in parameter_groups(model))
    assert not decayed & others
    assert decayed | others == set(names.values())
    assert {"blocks.1.memory.key_norm", "blocks.1.memory.query_norm", "blocks.1.memory.conv_norm", "norm.weight"} <= others
    assert {"blocks.1.memory.projection.weight", "embedding.weight", "head.weight", "blocks.0.ffn.down.weight"} <= decayed
    assert not [name for name in decayed if "norm" in name]


def test_a_parameter_without_a_role_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="new_matrix has no role"):
        parameter_groups(nn.ParameterDict({"new_matrix": nn.Parameter()}))


def gradients_of(model: nn.Module, step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(parameter.shape, generator=generator) for name, parameter in model.named_parameters()}


def test_muon_takes_each_map_as_torch_s_takes_a_matrix_of_its_own() -> None:
    """Bit for bit, at a learning rate that changes; and AdamW takes the rest as torch's does."""
    torch.manual_seed(0)
    model = LanguageModel(FUSED)
    parameters = dict(model.named_parameters())
    block = {name: parameters[f"blocks.1.{name}"] for name in {name for name, _ in MAPS.values()}}
    apart = {role: nn.Parameter(block[name][where].detach().clone()) for role, (name, where) in MAPS.items()}
    muon = torch.optim.Muon(apart.values(), weight_decay=RECIPE.weight_decay, adjust_lr_fn="match_rms_adamw")
    rest = {name: nn.Parameter(parameters[name].detach().clone()) for name in ("embedding.weight", "blocks.1.ffn.router")}
    adamw = torch.optim.AdamW(rest.values(), betas=(0.9, 0.95), weight_decay=RECIPE.weight_decay, fused=True)
    ours = backbone_optimizer(model, RECIPE)
    for step in range(4):
        gradients = gradients_of(model, step)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        for role, (name, where) in MAPS.items():
            apart[role].grad = gradients[f"blocks.1.{name}"][where].clone()
        for name, parameter in rest.items():
            parameter.grad = gradients[name].clone()
        for group in [*ours.param_groups, *muon.param_groups, *adamw.param_groups]:
            group["lr"] = 0.01 / (step + 1)
        for optimizer in (ours, muon, adamw):
            optimizer.step()
        assert [role for role, (name, where) in MAPS.items() if not torch.equal(block[name][where], apart[role])] == []
        assert [name for name, parameter in rest.items() if not torch.equal(parameters[name], parameter)] == []


def test_every_parameter_is_in_one_group_of_muon_and_adamw() -> None:
    model = LanguageModel(FUSED)
    grouped = [parameter for group in backbone_optimizer(model, RECIPE).param_groups for parameter in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))
    assert {id(parameter) for parameter in map_heights(model)} == set(map(id, grouped[-len(map_heights(model)) :]))


def test_the_state_of_muon_lies_in_the_parameter_s_shape_and_is_gone_on_from() -> None:
    """As a checkpoint does it: another optimiser, to whose state that of the first is given, by parameter."""
    torch.manual_seed(0)
    model, other = LanguageModel(FUSED), LanguageModel(FUSED)
    one, two = backbone_optimizer(model, RECIPE), backbone_optimizer(other, RECIPE)
    for step in range(6):
        if step == 3:
            other.load_state_dict(model.state_dict())
            for parameter, mine in zip(other.parameters(), model.parameters(), strict=True):
                two.state[parameter] = {name: tensor.clone() for name, tensor in one.state[mine].items()}
        for each in (model, other):
            for name, parameter in each.named_parameters():
                parameter.grad = gradients_of(model, step)[name]
        one.step()
        two.step()
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    stacked = model.blocks[1].ffn.experts.gate_up
    assert {name: tensor.shape for name, tensor in one.state[stacked].items()} == {"momentum_buffer": stacked.shape}
