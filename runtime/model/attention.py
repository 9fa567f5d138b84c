"""Causal attention with rotary positions, in which several heads may share their keys and values (grouped queries)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.model.config import ModelConfig
from runtime.model.helper import offered
from runtime.model.helper_kernel import attend
from runtime.model.pages import BlockBatch
from runtime.model.row_product import Linear
from runtime.model.step_kernel import is_decoded

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
        if positions > self.cos.shape[0]:
            self.cos, self.sin = self._computed(2 * positions, self.cos.device)
        return self.cos, self.sin

    def _computed(self, positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
        inverse = self.base ** (-torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float32) / self.head_dim)
        angles = torch.arange(positions, device=device, dtype=torch.float32).outer(inverse)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, T, heads, head_dim) rotated by the lines (T, head_dim) of `Rotary.tables`."""
    cos, sin = (lines[:, None].to(x.dtype) for lines in (cos, sin))
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, rotary: Rotary) -> None:
        super().__init__()
        self.heads, self.key_heads, self.head_dim, self.rotary = config.heads, config.key_heads, config.head_dim, rotary
        self.qkv = Linear(config.hidden, (config.heads + 2 * config.key_heads) * config.head_dim)
        self.query_norm, self.key_norm = (
            nn.Parameter(torch.ones(config.head_dim)) if config.qk_norm else None for _ in range(2)
        )
        self.out = Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor, cached: BlockBatch | None) -> Tensor:
        """Takes x (B, T, D) to the same shape: of whole sequences, or (1, N, D) of the rows of a batch."""
        qkv = self.qkv(x).unflatten(-1, (self.heads + 2 * self.key_heads, self.head_dim))
        if cached is not None:
            mixed = (self._decoded if is_decoded(qkv) else self._paged)(qkv[0], cached)
            return self.out(mixed.view(x.shape))  # type: ignore[no-any-return]
        length = x.shape[1]
        q, k, v = self._rotated(qkv, *(table[:length] for table in self.rotary.tables(length)))
        if q.is_cpu and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
            q, k, v = q.float(), k.float(), v.float()  # whose backward pass takes half of that in bfloat16 (docs/log.md)
        mixed = self._attended(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, **mask: Any) -> Tensor:
        grouped = self.key_heads != self.heads
        return functional.scaled_dot_product_attention(q, k, v, enable_gqa=grouped, **mask)

    def _rotated(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, T, head_dim), of what was projected (B, T, all heads, head_dim)."""
        q_and_k, v = torch.split(qkv, [self.heads + self.key_heads, self.key_heads], dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = torch.split(q_and_k, [self.heads, self.key_heads], dim=2)
            q, k = (
                functional.rms_norm(part, gain.shape, gain, QK_EPS) for part, gain in ((q, self.query_norm), (k, self.key_norm))
            )
            q_and_k = torch.cat([q, k], dim=2)
        q, k = torch.split(rotated(q_and_k, cos, sin).transpose(1, 2), [self.heads, self.key_heads], dim=1)
        return q, k, v.transpose(1, 2)

    def _paged(self, qkv: Tensor, cached: BlockBatch) -> Tensor:
        """(N, heads, head_dim) For what was projected (N, all heads, head_dim) of a batch's rows."""
        qkv = qkv[torch.from_numpy(cached.live).to(qkv.device)]
        positions = torch.from_numpy(cached.batch.positions[cached.live]).to(qkv.device)
        lines = (table[positions] for table in self.rotary.tables(int(positions.max()) + 1))
        q, k, v = (part[0].transpose(0, 1) for part in self._rotated(qkv[None], *lines))  # (rows, heads, head_dim)
        pages, places, _ = (found[: len(q)] for found in cached.places())
        cached.pages.keys[pages, :, places] = k
        cached.pages.values[pages, :, places] = v
        out = qkv.new_zeros(len(cached.live), self.heads, self.head_dim)
        for own, rows, first in cached.sequences():
            end = first + rows.stop - rows.start
            kept = (cached.pages.keys, cached.pages.values)
            keys, values = (each[own].transpose(0, 1).flatten(1, 2)[:, :end] for each in kept)  # (heads, positions, head_dim)
            mask = torch.ones(end - first, end, dtype=torch.bool, device=q.device).tril(first)
            found = self._attended(q[rows].transpose(0, 1)[None], keys[None], values[None], attn_mask=mask)
            out[rows] = found[0].transpose(0, 1)
        return out

    def _decoded(self, qkv: Tensor, cached: BlockBatch) -> Tensor:
        """What `_paged` gives, by the compiled kernel."""
        batch, pages, out = cached.batch, cached.pages, qkv.new_empty(qkv.shape[0], self.heads, self.head_dim)
        cos, sin = self.rotary.tables(batch.length)
        shape = qkv.shape[0], self.heads, self.key_heads, self.head_dim, pages.keys.shape[0], cos.shape[0]
        norms = (self.query_norm, self.key_norm) if self.query_norm is not None and self.key_norm is not None else ()
        gains = tuple(gain.data_ptr() for gain in norms) or (0, 0)
        rotations, kept = (cos.data_ptr(), sin.data_ptr()), (pages.keys.data_ptr(), pages.values.data_ptr())
        gain_width = self.head_dim if norms else 0
        given = (*shape, gain_width), batch.places, qkv.data_ptr(), gains, QK_EPS, rotations, *kept
        attend(offered(), *given, out.data_ptr())
        return out
