"""Which parameters of the backbone are optimised how. Rows have an optimiser of their own (`row_table.py`)."""

import torch
from torch import nn

from runtime.config import Recipe

BETAS = (0.9, 0.95)

# A parameter's role follows from the module it belongs to, or its own name where it is a module's own.
DECAYED = {"embedding", "head", "qkv", "out", "gate_up", "down", "router", "mapping", "projection"}  # matrices
# Gains, the convolution, the bias of the memory's projection, and what is added to and multiplied with the maps of streams.
NOT_DECAYED = {"norm", "attention_norm", "ffn_norm", "key_norm", "query_norm", "conv_norm", "conv", "bias", "base", "scale"}


def adamw(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone."""
    decayed, others = parameter_groups(model)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
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


def _role(name: str) -> str:
    """The name that decides a parameter's role: `qkv` of `blocks.0.attention.qkv.weight`, `conv` of `blocks.0.memory.conv`."""
    *modules, last = name.split(".")
    return modules[-1] if last == "weight" else last
