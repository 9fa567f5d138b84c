"""The memory module: n-gram vectors, gated by the hidden state, added to the residual stream (paper, section 2.3; the demo).

For each of M residual streams, with e the concatenated vectors of a position and h the stream:

    key_m = W_K^(m) e        value = W_V e         (one fused projection: the keys of all streams, then the value)
    s     = ⟨RMSNorm(h_m), RMSNorm(key_m)⟩ / sqrt(D)
    v_m   = gate(s) · value
    out_m = v_m + SiLU(conv(RMSNorm(v_m)))         depthwise, causal, dilated by the longest order

The convolution is written as shifted products: four multiply-adds are faster than a depthwise conv1d on a CPU and take the
values that precede the sequence as they are, so decoding in pieces computes what the whole sequence would.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hashing.base.errors import EngramError

Gate = Literal["signed_sqrt", "sigmoid"]
GATE_EPS = torch.finfo(torch.float32).eps
CONV_EPS = 1e-5
MIN_SCORE = 1e-6


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    hidden: int  # D, width of a residual stream
    width: int  # E, columns · head_dim
    dilation: int  # N, the longest order
    streams: int = 1  # M
    gate: Gate = "signed_sqrt"  # the released weights' form; "sigmoid" is the paper's
    conv: bool = True
    kernel: int = 4
    conv_zero_init: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        if min(self.hidden, self.width, self.dilation, self.streams, self.kernel) < 1:
            raise EngramError(f"every size of a memory module is at least 1, found {self}")

    @property
    def lookback(self) -> int:
        """Positions before the current one that the convolution reads."""
        return (self.kernel - 1) * self.dilation


class EngramMemory(nn.Module):
    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(config.width, (config.streams + 1) * config.hidden, bias=config.bias)
        self.key_norm = nn.Parameter(torch.ones(config.streams, config.hidden))
        self.query_norm = nn.Parameter(torch.ones(config.streams, config.hidden))
        if config.conv:
            initial = torch.zeros if config.conv_zero_init else _conv_init
            self.conv_norm = nn.Parameter(torch.ones(config.streams, config.hidden))
            self.conv = nn.Parameter(initial(config.streams, config.hidden, config.kernel))

    def forward(self, hidden: Tensor, vectors: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What to add to the streams `hidden` (B, T, M, D), given `vectors` (B, T, E).

        `before` (B, lookback, M, D) is the second result of the call for the piece before; None stands for zeros. It is None
        throughout where there is no convolution.
        """
        gated = self.gate(hidden, vectors)
        if not self.config.conv:
            return gated, None
        normalised = functional.rms_norm(gated, gated.shape[-1:], eps=CONV_EPS) * self.conv_norm
        if before is None:
            before = normalised.new_zeros(len(gated), self.config.lookback, *gated.shape[2:])
        padded = torch.cat([before, normalised], dim=1)  # (B, lookback + T, M, D)
        length, dilation = gated.shape[1], self.config.dilation
        taps = self.conv.unbind(-1)
        mixed = sum((padded[:, i * dilation : i * dilation + length] * tap for i, tap in enumerate(taps)), torch.zeros(()))
        return gated + functional.silu(mixed), padded[:, length:]

    def gate(self, hidden: Tensor, vectors: Tensor) -> Tensor:
        """(B, T, M, D) The value, scaled for each stream by how well its key fits the hidden state."""
        keys, value = self._keys_and_value(vectors)
        return self._openness(hidden, keys).unsqueeze(-1) * value.unsqueeze(2)

    def gates(self, hidden: Tensor, vectors: Tensor) -> Tensor:
        """(B, T, M) How far the gate opens, 0 to 1."""
        return self._openness(hidden, self._keys_and_value(vectors)[0])

    def _keys_and_value(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        keys, value = self.projection(vectors).split([self.config.streams * self.config.hidden, self.config.hidden], dim=-1)
        return keys.unflatten(-1, (self.config.streams, self.config.hidden)), value

    def _openness(self, hidden: Tensor, keys: Tensor) -> Tensor:
        size = (self.config.hidden,)
        query = functional.rms_norm(hidden, size, eps=GATE_EPS) * self.query_norm
        key = functional.rms_norm(keys.to(query.dtype), size, eps=GATE_EPS) * self.key_norm
        score = (query * key).sum(-1) / sqrt(self.config.hidden)
        if self.config.gate == "signed_sqrt":
            score = score.sign() * score.abs().clamp_min(MIN_SCORE).sqrt()
        return torch.sigmoid(score)

    def load_demo(self, parameters: Mapping[str, Tensor]) -> None:
        """Takes the parameters of the official demo's module, by its own names (the table is not among them).

        Raises EngramError for a missing name or a shape that does not fit.
        """
        per_stream = range(self.config.streams)
        linear = [*(f"key_projs.{m}" for m in per_stream), "value_proj"]
        own = {
            "projection.weight": [f"{name}.weight" for name in linear],
            "projection.bias": [f"{name}.bias" for name in linear] if self.config.bias else [],
            "key_norm": [f"norm1.{m}.weight" for m in per_stream],
            "query_norm": [f"norm2.{m}.weight" for m in per_stream],
            "conv_norm": [f"short_conv.norms.{m}.weight" for m in per_stream] if self.config.conv else [],
            "conv": ["short_conv.conv.weight"] if self.config.conv else [],
        }
        for name, parameter in self.named_parameters():
            if missing := [part for part in own[name] if part not in parameters]:
                raise EngramError(f"the demo's parameters lack {', '.join(missing)}")
            joined = torch.cat([parameters[part] for part in own[name]])
            if joined.numel() != parameter.numel():
                raise EngramError(f"{own[name][0]} gives {joined.numel()} numbers for {name}, expected {parameter.numel()}")
            with torch.no_grad():
                parameter.copy_(joined.reshape(parameter.shape))


def _conv_init(*shape: int) -> Tensor:
    bound = 1 / sqrt(shape[-1])
    return torch.empty(shape).uniform_(-bound, bound)
