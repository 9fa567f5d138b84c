"""Causal attention with rotary positions, in which several heads may share their keys and values (grouped queries)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.model.cache import BlockCache
from runtime.model.config import ModelConfig
from runtime.model.step_kernel import is_step, rotate_and_keep

QK_EPS = 1e-6
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
        """x (B, T, heads, head_dim) rotated; its first position is number `first`."""
        length = x.shape[1]
        cos, sin = (table[first : first + length, None].to(x.dtype) for table in self.tables(first + length))
        return torch.addcmul(x * cos, x.roll(self.head_dim // 2, -1), sin)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, rotary: Rotary) -> None:
        super().__init__()
        self.heads, self.key_heads, self.head_dim, self.rotary = config.heads, config.key_heads, config.head_dim, rotary
        self.qkv = nn.Linear(config.hidden, (config.heads + 2 * config.key_heads) * config.head_dim, bias=False)
        self.query_norm, self.key_norm = (
            nn.Parameter(torch.ones(config.head_dim)) if config.qk_norm else None for _ in range(2)
        )
        self.out = nn.Linear(config.hidden, config.hidden, bias=False)

    def forward(self, x: Tensor, cache: BlockCache | None) -> Tensor:
        """Takes x (B, T, D) to the same shape; with a cache, x follows the positions in it and is added to them."""
        batch, new, _ = x.shape
        past = cache.length if cache else 0
        qkv = self.qkv(x).view(batch, new, self.heads + 2 * self.key_heads, self.head_dim)
        if cache is not None and self._is_plain and is_step(qkv):
            q, k, v = self._step(qkv, cache)
        else:
            q, k, v = self._rotated(qkv, past)
            if cache is not None:
                cache.extend(k, v)
                k, v = cache.attended()
        if q.is_cpu and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
            q, k, v = q.float(), k.float(), v.float()  # whose backward pass takes half of that in bfloat16 (docs/log.md)
        mask = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past) if past and new > 1 else None
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=past == 0 and new > 1, enable_gqa=self.key_heads != self.heads
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, new, -1))  # type: ignore[no-any-return]

    @property
    def _is_plain(self) -> bool:
        """Whether compiled code knows this attention: every head has keys of its own, as they are projected."""
        return self.key_heads == self.heads and self.query_norm is None

    def _rotated(self, qkv: Tensor, past: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, T, head_dim), of what was projected (B, T, all heads, head_dim)."""
        q_and_k, v = torch.split(qkv, [self.heads + self.key_heads, self.key_heads], dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = torch.split(q_and_k, [self.heads, self.key_heads], dim=2)
            q, k = (
                functional.rms_norm(part, gain.shape, gain, QK_EPS) for part, gain in ((q, self.query_norm), (k, self.key_norm))
            )
            q_and_k = torch.cat([q, k], dim=2)
        q, k = torch.split(self.rotary.rotated(q_and_k, past).transpose(1, 2), [self.heads, self.key_heads], dim=1)
        return q, k, v.transpose(1, 2)

    def _step(self, qkv: Tensor, cache: BlockCache) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of one position (B, H, 1, head_dim), and all keys and values with those of this position."""
        keys, values = cache.reserve(1, qkv, (len(qkv), self.heads, self.head_dim))
        cos, sin = self.rotary.tables(cache.length + 1)
        shape = len(qkv), self.heads, self.head_dim, keys.shape[2], len(cos)
        tables, buffers = (cos.data_ptr(), sin.data_ptr()), (keys.data_ptr(), values.data_ptr())
        rotate_and_keep(shape, qkv.data_ptr(), *tables, cache.length, *buffers)
        cache.length += 1
        return qkv.narrow(2, 0, self.heads).transpose(1, 2), *cache.attended()
