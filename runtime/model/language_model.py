"""A decoder-only Transformer with Engram memory at chosen blocks.

RMSNorm, rotary positions, scaled-dot-product attention, SwiGLU. A block with memory adds the module's output to the
residual stream before its attention. The model never hashes and never reads a table: it asks for a layer's vectors when it
gets there.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hashing.base.errors import EngramError
from runtime.model.memory import EngramMemory, Gate, MemoryConfig

LOSS_POSITIONS = 256
# Of the memory's projection. Rows start small; at this gain their first steps already count (docs/log.md).
MEMORY_GAIN = 2.0

Vectors = Callable[[int], Tensor]
"""The vectors (B, T, E) of a layer, waited for if need be."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    vocab_size: int
    hidden: int
    blocks: int
    heads: int
    ffn: int
    memory_layers: tuple[int, ...]  # blocks, from 0
    memory_width: int  # E, columns · head_dim
    max_order: int
    gate: Gate = "signed_sqrt"
    conv: bool = True
    conv_zero_init: bool = True
    tied: bool = False
    rope_base: float = 10_000.0

    def __post_init__(self) -> None:
        if self.hidden % (2 * self.heads):
            raise EngramError(f"hidden size {self.hidden} does not split into {self.heads} heads of even width")
        if any(not 0 <= layer < self.blocks for layer in self.memory_layers):
            raise EngramError(f"memory layers {list(self.memory_layers)} are not all among the {self.blocks} blocks")

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def memory(self) -> MemoryConfig:
        return MemoryConfig(
            hidden=self.hidden,
            width=self.memory_width,
            dilation=self.max_order,
            gate=self.gate,
            conv=self.conv,
            conv_zero_init=self.conv_zero_init,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "ModelConfig":
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(content) - known):
            raise EngramError(f"the model configuration has unknown keys: {', '.join(unknown)}")
        try:
            return cls(**{**content, "memory_layers": tuple(content["memory_layers"])})
        except (KeyError, TypeError) as e:
            raise EngramError(f"the model configuration is incomplete: {e}") from e


@dataclass(slots=True)
class Cache:
    """What decoding in pieces carries over: keys and values of every block, and the memory's convolution history."""

    attended: dict[int, Tensor] = field(default_factory=dict)  # (2, B, H, capacity, head_dim) keys and values
    convolved: dict[int, Tensor | None] = field(default_factory=dict)
    length: int = 0

    def extend(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values (B, H, past + T, head_dim) of a block; the buffer doubles when it is full."""
        end = self.length + keys.shape[2]
        held = self.attended.get(block)
        if held is None or held.shape[3] < end:
            grown = keys.new_empty(2, *keys.shape[:2], 2 * end, keys.shape[3])
            if held is not None:
                grown[:, :, :, : self.length] = held[:, :, :, : self.length]
            held = self.attended[block] = grown
        held[:, :, :, self.length : end] = torch.stack([keys, values])
        keys, values = held[:, :, :, :end]
        return keys, values


class RMSNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, x.shape[-1:], self.weight, 1e-6)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden, bias=False)
        self.out = nn.Linear(config.hidden, config.hidden, bias=False)

    def forward(self, x: Tensor, rotation: Tensor, block: int, cache: Cache | None) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = rotate(q, rotation), rotate(k, rotation)
        past = cache.length if cache else 0
        if cache is not None:
            k, v = cache.extend(block, k, v)
        new, mask = q.shape[2], None
        if past and new > 1:
            mask = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=past == 0 and new > 1)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden, 2 * config.ffn, bias=False)
        self.down = nn.Linear(config.ffn, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, config: ModelConfig, memory: bool) -> None:
        super().__init__()
        self.memory = EngramMemory(config.memory()) if memory else None
        self.attention_norm = RMSNorm(config.hidden)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.hidden)
        self.ffn = FeedForward(config)


def rope_rotation(first: int, length: int, head_dim: int, base: float, device: torch.device) -> Tensor:
    """(2, length, head_dim / 2) cosines and sines of positions first … first + length - 1."""
    inverse = base ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angles = torch.arange(first, first + length, device=device, dtype=torch.float32).outer(inverse)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary positions over the two halves of each head: x (B, H, T, head_dim)."""
    cos, sin = rotation.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class LanguageModel(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden)
        blocks = [Block(config, i in config.memory_layers) for i in range(config.blocks)]
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.norm = RMSNorm(config.hidden)
        self.head = nn.Linear(config.hidden, config.vocab_size, bias=False)
        self.apply(self._initialise)
        for block in blocks:
            for last in (block.attention.out, block.ffn.down):
                nn.init.normal_(last.weight, std=0.02 / (2 * config.blocks) ** 0.5)
            if block.memory is not None:
                nn.init.normal_(block.memory.projection.weight, std=MEMORY_GAIN / config.memory_width**0.5)
        if config.tied:
            self.head.weight = self.embedding.weight

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, token_ids: Tensor, vectors: Vectors | None, cache: Cache | None = None) -> Tensor:
        """(B, T, vocabulary) Logits for token ids (B, T); with `vectors` None the memory is suppressed.

        With a cache, `token_ids` follow those of the calls before.
        """
        return self.head(self.hidden_states(token_ids, vectors, cache))  # type: ignore[no-any-return]

    def loss(self, token_ids: Tensor, targets: Tensor, vectors: Vectors | None) -> Tensor:
        """Mean cross-entropy in nats per token of targets (B, T).

        Logits are made for a few positions at a time: those of a whole batch would be the largest tensor of a step by far.
        """
        hidden = torch.split(self.hidden_states(token_ids, vectors).flatten(0, 1), LOSS_POSITIONS)
        parts = [
            functional.cross_entropy(self.head(h).float(), t, reduction="sum")
            for h, t in zip(hidden, torch.split(targets.flatten(), LOSS_POSITIONS), strict=True)
        ]
        return torch.stack(parts).sum() / targets.numel()

    def hidden_states(self, token_ids: Tensor, vectors: Vectors | None, cache: Cache | None = None) -> Tensor:
        """(B, T, D) What the head reads."""
        x = self.embedding(token_ids)
        first = cache.length if cache else 0
        rotation = rope_rotation(first, token_ids.shape[1], self.config.head_dim, self.config.rope_base, x.device)
        for i, block in enumerate(self.blocks):
            if block.memory is not None and vectors is not None:
                before = cache.convolved.get(i) if cache else None
                added, history = block.memory(x.unsqueeze(2), vectors(i), before)
                x = x + added.squeeze(2)
                if cache is not None:
                    cache.convolved[i] = history
            x = x + block.attention(block.attention_norm(x), rotation, i, cache)
            x = x + block.ffn(block.ffn_norm(x))
        if cache is not None:
            cache.length += token_ids.shape[1]
        return self.norm(x)  # type: ignore[no-any-return]
