"""A mixture of experts: a few of many feed-forward networks for each token, beside one that all tokens share (DeepSeek-V3).

    s       = sigmoid(x · W)                          in float32, one score for each routed expert
    chosen  = the k experts with the largest s + b    b, the correction bias, decides who is chosen and nothing else
    weights = s / (Σ s of those chosen + 1e−20) · scale
    output  = shared(x) + Σ weights · expert(x)

After each step of the optimiser b moves by a fixed amount towards the experts that had fewer tokens than the mean, so that all
are used without a loss of their own.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.model.config import ModelConfig
from runtime.model.feed_forward import FeedForward
from runtime.model.filled_rows import filled_rows

EPS = 1e-20


class Experts(nn.Module):
    """The routed experts' matrices, each kind in one parameter."""

    def __init__(self, count: int, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(count, 2 * inner, hidden))
        self.down = nn.Parameter(torch.empty(count, hidden, inner))

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor, filled: Callable[[int], int]) -> Tensor:
        """(N, D) For tokens x (N, D), the sum over the experts chosen (N, k) of their outputs times the weights (N, k).

        Tokens are sorted by expert, so each expert is two products over all of its own, filled up with zeros to as many
        rows as `filled` says for their number.
        """
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=len(self.gate_up)).tolist()
        tokens = order // chosen.shape[1]
        matrices = zip(self.gate_up.unbind(), self.down.unbind(), strict=True)  # backward joins their gradients once
        parts = torch.split(x[tokens], counts)
        outputs = [self._expert(*own, part, filled(len(part))) for own, part in zip(matrices, parts, strict=True) if len(part)]
        weighted = torch.cat(outputs) * weights.flatten()[order].unsqueeze(-1).to(x.dtype)
        return torch.zeros_like(x, dtype=weighted.dtype).index_add(0, tokens, weighted)

    @staticmethod
    def _expert(gate_up: Tensor, down: Tensor, x: Tensor, rows: int) -> Tensor:
        filled = functional.pad(x, (0, 0, 0, rows - len(x))) if rows > len(x) else x
        gate, up = functional.linear(filled, gate_up).chunk(2, dim=-1)
        return functional.linear(functional.silu(gate) * up, down)[: len(x)]


class MixtureOfExperts(nn.Module):
    bias: Tensor  # (experts,) float32
    load: Tensor  # (experts,) tokens that chose each, since the last balancing

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.per_token, self.scale = config, config.experts_per_token, config.router_scale
        self.router = nn.Parameter(torch.empty(config.experts, config.hidden))
        self.experts = Experts(config.experts, config.hidden, config.expert_ffn)
        inner = config.shared_experts * config.expert_ffn
        self.shared = FeedForward(config.hidden, inner) if inner else None
        self.register_buffer("bias", torch.zeros(config.experts))
        self.register_buffer("load", torch.zeros(config.experts), persistent=False)

    def forward(self, x: Tensor, decoding: bool = False) -> Tensor:
        """Takes x (B, T, D) to the same shape. In decoding a token's bits do not depend on who shares its experts."""
        flat = x.flatten(0, -2)
        chosen, weights = self.route(flat)
        if torch.is_grad_enabled():
            self.load += chosen.flatten().bincount(minlength=len(self.load))
        filled = partial(filled_rows, config=self.config) if decoding else int
        out = self.experts(flat, chosen, weights, filled).view_as(x)
        return out if self.shared is None else out + self.shared(x)  # type: ignore[no-any-return]

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The experts (N, k) of tokens x (N, D), and their weights (N, k) in float32."""
        with torch.autocast(x.device.type, enabled=False):
            scores = functional.linear(x.float(), self.router.float()).sigmoid()
        chosen = (scores + self.bias).topk(self.per_token, dim=-1, sorted=False).indices
        weights = scores.gather(-1, chosen)
        return chosen, weights / (weights.sum(-1, keepdim=True) + EPS) * self.scale

    @torch.no_grad()
    def balance(self, rate: float) -> None:
        """Moves the bias by `rate`, up where an expert had fewer tokens than the mean since the last time, else down."""
        self.bias += rate * torch.sign(self.load.mean() - self.load)
        self.load.zero_()
