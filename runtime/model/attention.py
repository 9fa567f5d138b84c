"""Causal attention with rotary positions."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.model.cache import BlockCache
from runtime.model.config import ModelConfig
from runtime.model.step_kernel import is_step, rotate_and_keep

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
        for name, table in zip(("cos", "sin"), self._computed(FIRST_POSITIONS, torch.device("cpu")), strict=True):
            self.register_buffer(name, table, persistent=False)

    def tables(self, positions: int) -> tuple[Tensor, Tensor]:
        """[cos, cos] and [-sin, sin] of at least so many positions, each (positions, head_dim) float32."""
        if positions > len(self.cos):
            self.cos, self.sin = self._computed(2 * positions, self.cos.device)
        return self.cos, self.sin

    def _computed(self, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
        inverse = self.base ** (-torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float32) / self.head_dim)
        angles = torch.arange(positions, device=device, dtype=torch.float32).outer(inverse)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def rotated(self, x: Tensor, first: int) -> Tensor:
        """x (B, T, …, head_dim), with two dimensions in between, rotated; its first position is number `first`."""
        length = x.shape[1]
        cos, sin = (table[first : first + length, None, None].to(x.dtype) for table in self.tables(first + length))
        return torch.addcmul(x * cos, x.roll(self.head_dim // 2, -1), sin)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, rotary: Rotary) -> None:
        super().__init__()
        self.heads, self.head_dim, self.rotary = config.heads, config.head_dim, rotary
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden, bias=False)
        self.out = nn.Linear(config.hidden, config.hidden, bias=False)

    def forward(self, x: Tensor, cache: BlockCache | None) -> Tensor:
        """Takes x (B, T, D) to the same shape; with a cache, x follows the positions in it and is added to them."""
        batch, new, _ = x.shape
        past = cache.length if cache else 0
        qkv = self.qkv(x).view(batch, new, 3, self.heads, self.head_dim)
        if cache is not None and is_step(qkv):
            q, k, v = self._step(qkv, cache)
        else:
            q, k = self.rotary.rotated(qkv.narrow(2, 0, 2), past).transpose(1, 3).unbind(2)  # (B, H, T, head_dim)
            v = qkv.select(2, 2).transpose(1, 2)
            if cache is not None:
                cache.extend(k, v)
                k, v = cache.attended()
        mask = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past) if past and new > 1 else None
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=past == 0 and new > 1)
        return self.out(mixed.transpose(1, 2).reshape(batch, new, -1))  # type: ignore[no-any-return]

    def _step(self, qkv: Tensor, cache: BlockCache) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of one position (B, H, 1, head_dim), and all keys and values with those of this position."""
        keys, values = cache.reserve(1, qkv, (len(qkv), self.heads, self.head_dim))
        cos, sin = self.rotary.tables(cache.length + 1)
        shape = len(qkv), self.heads, self.head_dim, keys.shape[2], len(cos)
        tables, buffers = (cos.data_ptr(), sin.data_ptr()), (keys.data_ptr(), values.data_ptr())
        rotate_and_keep(shape, qkv.data_ptr(), *tables, cache.length, *buffers)
        cache.length += 1
        return qkv.select(2, 0).transpose(1, 2), *cache.attended()
