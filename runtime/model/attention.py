"""Causal attention with rotary positions."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.model.cache import BlockCache
from runtime.model.config import ModelConfig

FIRST_POSITIONS = 512  # that the rotations are computed for at first


class Rotary(nn.Module):
    """Rotations of all positions, computed once and again whenever a sequence is longer than any before.

    The two halves of a head's vector are the two coordinates that are rotated, so with x = [a, b]

        rotated = x · [cos, cos] + [b, a] · [-sin, sin]
    """

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        self.head_dim, self.base = head_dim, base
        self.cos: Tensor
        self.sin: Tensor
        for name, table in zip(("cos", "sin"), self._tables(FIRST_POSITIONS, torch.device("cpu")), strict=True):
            self.register_buffer(name, table, persistent=False)

    def _tables(self, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Two (positions, 1, 1, head_dim) float32: [cos, cos] and [-sin, sin]."""
        inverse = self.base ** (-torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float32) / self.head_dim)
        angles = torch.arange(positions, device=device, dtype=torch.float32).outer(inverse)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], -1)[:, None, None], torch.cat([-sin, sin], -1)[:, None, None]

    def forward(self, x: Tensor, first: int) -> Tensor:
        """Rotates x (B, T, …, head_dim), two dimensions in between, whose first position is number `first`."""
        end = first + x.shape[1]
        if end > len(self.cos):
            self.cos, self.sin = self._tables(2 * end, self.cos.device)
        cos, sin = self.cos[first:end].to(x.dtype), self.sin[first:end].to(x.dtype)
        return torch.addcmul(x * cos, x.roll(self.head_dim // 2, -1), sin)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, rotary: Rotary) -> None:
        super().__init__()
        self.heads, self.head_dim, self.rotary = config.heads, config.head_dim, rotary
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden, bias=False)
        self.out = nn.Linear(config.hidden, config.hidden, bias=False)

    def forward(self, x: Tensor, cache: BlockCache | None) -> Tensor:
        """(B, T, D) for x (B, T, D); with a cache, x follows the positions in it and is added to them."""
        batch, new, _ = x.shape
        past = cache.length if cache else 0
        qkv = self.qkv(x).view(batch, new, 3, self.heads, self.head_dim)
        q, k = self.rotary(qkv[:, :, :2], past).transpose(1, 3).unbind(2)  # (B, H, T, head_dim)
        v = qkv[:, :, 2].transpose(1, 2)
        if cache is not None:
            k, v = cache.extend(k, v)
        mask = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past) if past and new > 1 else None
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=past == 0 and new > 1)
        return self.out(mixed.transpose(1, 2).reshape(batch, new, -1))  # type: ignore[no-any-return]
