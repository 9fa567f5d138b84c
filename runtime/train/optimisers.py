"""Which parameters of the backbone are optimised how. Rows have an optimiser of their own (`row_table.py`).

AdamW takes all of them; or Muon takes the maps between hidden states and leaves it the rest: embedding, head, router, the maps
of streams, gains, biases and the convolution. A matrix that fuses several maps is as many matrices to Muon: what one map's
gradient looks like says nothing of another's.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from runtime.config import Recipe
from runtime.model.config import ModelConfig
from runtime.model.language_model import LanguageModel

BETAS = (0.9, 0.95)

# A parameter's role follows from the module it belongs to, or its own name where it is a module's own.
MAPS = {"qkv", "out", "gate_up", "down", "projection"}  # matrices between hidden states
DECAYED = {"embedding", "head", "router", "mapping"} | MAPS
# Gains, the convolution, the bias of the memory's projection, and what is added to and multiplied with the maps of streams.
NOT_DECAYED = {"norm", "attention_norm", "ffn_norm", "key_norm", "query_norm", "conv_norm", "conv", "bias", "base", "scale"}


class MuonAndAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` on the maps of some parameters and AdamW on all others, as one optimiser.

    The last of its groups has the parameters that Muon takes; their state is `momentum_buffer`, in the parameter's shape. Their
    updates are as large as AdamW's in the root mean square, so that one learning rate serves both.
    """

    def __init__(self, others: list[dict[str, Any]], heights: Mapping[nn.Parameter, list[int]], recipe: Recipe) -> None:
        """`heights` has Muon's parameters (…, rows, inputs), and the rows of each map that they fuse, one below another."""
        maps = {"params": list(heights), "weight_decay": recipe.weight_decay}
        super().__init__([*map(dict, others), maps], {"lr": recipe.learning_rate})
        self._adamw = torch.optim.AdamW(others, betas=BETAS, fused=True)
        self._adamw.state = self.state
        self._heights = heights
        self._maps = {whole: [nn.Parameter(part) for part in _parts(whole.detach(), heights[whole])] for whole in heights}
        every_map = [part for parts in self._maps.values() for part in parts]
        self._muon = torch.optim.Muon(every_map, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the gradients are there already"
        inner = [*self._adamw.param_groups, *self._muon.param_groups]
        for group, own in zip(inner, self.param_groups, strict=True):
            group["lr"] = own["lr"]
        for whole, maps in self._maps.items():
            self._lend(whole, maps)
        self._adamw.step()
        self._muon.step()  # type: ignore[no-untyped-call]

    def _lend(self, whole: nn.Parameter, maps: list[nn.Parameter]) -> None:
        """Shows Muon the maps' parts of a parameter's gradient and of its momentum, which it changes where they lie."""
        assert whole.grad is not None, "backward comes first"
        if whole not in self.state:
            self.state[whole] = {"momentum_buffer": torch.zeros_like(whole)}
        gradients, momenta = (_parts(t, self._heights[whole]) for t in (whole.grad, self.state[whole]["momentum_buffer"]))
        for part, gradient, momentum in zip(maps, gradients, momenta, strict=True):
            part.grad = gradient
            self._muon.state[part] = {"momentum_buffer": momentum}


def backbone_optimizer(model: LanguageModel, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's, with weight decay on matrices alone."""
    heights = map_heights(model) if recipe.optimizer == "muon" else {}
    decayed, others = parameter_groups(model)
    groups = [
        {"params": [parameter for parameter in decayed if parameter not in heights], "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if heights:
        return MuonAndAdamW(groups, heights, recipe)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=BETAS, fused=True)


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that decay and those that do not; each is in exactly one of the two."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        role = _role(name)
        assert (role in DECAYED) != (role in NOT_DECAYED), f"{name} has no role in the optimiser"
        (decayed if role in DECAYED else others).append(parameter)
    return decayed, others


def map_heights(model: LanguageModel) -> dict[nn.Parameter, list[int]]:
    """The parameters between hidden states, and the rows of each map that they fuse, one below another."""
    roles = {parameter: _role(name) for name, parameter in model.named_parameters()}
    return {each: _heights(role, each.shape[-2], model.config) for each, role in roles.items() if role in MAPS}


def _heights(role: str, rows: int, config: ModelConfig) -> list[int]:
    keys = config.key_heads * config.head_dim
    if role == "qkv":
        return [config.hidden, keys, keys]
    if role == "gate_up":
        return [rows // 2, rows // 2]
    if role == "projection":
        return [config.hidden] * (config.streams + 1)  # a key for each stream, then the value
    return [rows]


def _parts(whole: Tensor, heights: list[int]) -> list[Tensor]:
    """The maps in a matrix (rows, inputs), or in each matrix of a stack of experts, as views."""
    matrices = whole.unbind() if whole.dim() == 3 else [whole]
    return [part for matrix in matrices for part in torch.split(matrix, heights)]


def _role(name: str) -> str:
    """The name that decides a parameter's role: `qkv` of `blocks.0.attention.qkv.weight`, `conv` of `blocks.0.memory.conv`."""
    *modules, last = name.split(".")
    return modules[-1] if last == "weight" else last
