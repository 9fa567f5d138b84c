"""The memory module: n-gram vectors, gated by the hidden state, added to the residual stream (paper, section 2.3; the demo).

For each of M residual streams, with e the concatenated vectors of a position and h the stream:

    key_m = W_K^(m) e        value = W_V e         (one fused projection: the keys of all streams, then the value)
    s     = ⟨RMSNorm(h_m), RMSNorm(key_m)⟩ / sqrt(D)
    v_m   = gate(s) · value
    out_m = v_m + SiLU(conv(RMSNorm(v_m)))         depthwise, causal, dilated by the longest order

The convolution is written as shifted products: four multiply-adds are faster than a depthwise conv1d on a CPU and take the
values that precede the sequence as they are, so decoding in pieces computes what the whole sequence would. A single position on
a CPU, which is what decoding asks for, has a compiled kernel.
"""

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from hashing.base.errors import EngramError
from runtime.model.cache import BlockCache
from runtime.model.config import MemoryConfig
from runtime.model.float8 import MULTIPLE, Float8Linear
from runtime.model.memory_kernel import Form, Remembered, is_trained
from runtime.model.points import Watched
from runtime.model.step_kernel import is_step, remember

GATE_EPS = torch.finfo(torch.float32).eps
CONV_EPS = 1e-5
MIN_SCORE = 1e-6


class EngramMemory(Watched):
    """Letters of shapes: B sequences, T positions, M streams of width D, vectors of width E."""

    eps = GATE_EPS  # of the norms that a score is made of

    def __init__(self, config: MemoryConfig, hidden: int, streams: int = 1, name: str = "memory") -> None:
        super().__init__(name)
        self.config, self.hidden, self.streams = config, hidden, streams
        self.projection = nn.Linear(config.width, (streams + 1) * hidden, bias=config.bias)
        self.float8 = False  # whether training computes the projection in FP8
        self.key_norm = nn.Parameter(torch.ones(streams, hidden))
        self.query_norm = nn.Parameter(torch.ones(streams, hidden))
        if config.conv:
            initial = torch.zeros if config.conv_zero_init else _conv_init
            self.conv_norm = nn.Parameter(torch.ones(streams, hidden))
            self.conv = nn.Parameter(initial(streams, hidden, config.kernel))

    def forward(self, hidden: Tensor, vectors: Tensor, cache: BlockCache | None = None) -> Tensor:
        """(B, T, M, D) What to add to the streams `hidden` (B, T, M, D), given `vectors` (B, T, E).

        With a cache, the positions follow those of the calls before.
        """
        if cache is not None and self.watch is None and self._has_kernel and is_step(hidden):
            return self._step(hidden, vectors, cache)
        if cache is None and self.watch is None and self.config.gate != "none" and is_trained(hidden):
            return self._trained(hidden, vectors)
        keys, value = self._keys_and_value(self.point("e", vectors))
        gate = self.point("gate", self._gate(self.point("score", self._score(hidden, keys))))
        gated = gate * value
        if self.config.conv:
            gated = gated + self.point("conv", functional.silu(self._convolved(gated, cache)))
        return self.point("out", gated)

    @property
    def _has_kernel(self) -> bool:
        """Whether the compiled kernel of decoding knows this form of the module."""
        return self.config.conv and self.config.gate != "none"

    def _keys_and_value(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (B, T, M, D) and value (B, T, 1, D)."""
        projected = self._projected(vectors).unflatten(-1, (self.streams + 1, self.hidden))  # type: ignore[no-untyped-call]
        keys, value = projected.split([self.streams, 1], dim=2)
        return self.point("key", keys), self.point("value", value)

    def _projected(self, vectors: Tensor) -> Tensor:
        """Keys and value (B, T, (M + 1)·D)."""
        if not (self.float8 and torch.is_grad_enabled()):
            plain: Tensor = self.projection(vectors)
            return plain
        flat = vectors.flatten(0, 1)
        padding = -len(flat) % MULTIPLE  # of the positions, which the gradient of the weight is summed up over
        projected: Tensor = Float8Linear.apply(  # type: ignore[no-untyped-call]
            functional.pad(flat, (0, 0, 0, padding)), self.projection.weight
        )
        projected = projected[: len(flat)].view(*vectors.shape[:2], -1)
        return projected if self.projection.bias is None else projected + self.projection.bias

    def _score(self, hidden: Tensor, keys: Tensor) -> Tensor:
        """Scores (B, T, M, 1): how well each stream fits its key."""
        query = functional.rms_norm(hidden, (self.hidden,), eps=self.eps) * self.query_norm
        key = functional.rms_norm(keys.to(hidden.dtype), (self.hidden,), eps=self.eps) * self.key_norm
        return (query * key).sum(-1, keepdim=True) / sqrt(self.hidden)

    def _gate(self, score: Tensor) -> Tensor:
        """How far the gate opens, from 0 to 1, for scores (B, T, M, 1)."""
        if self.config.gate == "none":
            return torch.ones_like(score)
        if self.config.gate == "signed_sqrt":
            score = score.sign() * score.abs().clamp_min(MIN_SCORE).sqrt()
        return torch.sigmoid(score)

    def _convolved(self, gated: Tensor, cache: BlockCache | None) -> Tensor:
        """The convolution (B, T, M, D) of gated values, which go into the cache for the positions that follow."""
        length, dilation = gated.shape[1], self.config.dilation
        normalised = functional.rms_norm(gated, (self.hidden,), eps=CONV_EPS) * self.conv_norm
        before = cache.convolved if cache else None
        if before is None:
            before = normalised.new_zeros(len(gated), self.config.lookback, *gated.shape[2:])
        padded = torch.cat([before, normalised], dim=1)  # (B, lookback + T, M, D)
        if cache is not None:
            cache.convolved = padded[:, length:].clone()  # a view would keep the whole piece in memory
        first, *others = self.conv.unbind(-1)
        mixed = padded[:, :length] * first
        for number, tap in enumerate(others, 1):
            mixed = torch.addcmul(mixed, padded[:, number * dilation : number * dilation + length], tap)
        return mixed

    def _step(self, hidden: Tensor, vectors: Tensor, cache: BlockCache) -> Tensor:
        """What `forward` gives, by the compiled kernel; `hidden` is (B, 1, M, D)."""
        if cache.convolved is None:
            cache.convolved = hidden.new_zeros(len(hidden), self.config.lookback, self.streams, self.hidden)
        projected, out = self.projection(vectors), torch.empty_like(hidden)
        assert projected.dtype == torch.float32, "decoding is not under autocast: compiled code reads float32"
        shape = len(hidden), self.streams, self.hidden, self.config.lookback, self.config.kernel
        gate = self.config.gate == "signed_sqrt", self.eps, MIN_SCORE
        conv = cache.convolved.data_ptr(), self.conv.data_ptr(), self.conv_norm.data_ptr(), self.config.dilation, CONV_EPS
        gains = self.query_norm.data_ptr(), self.key_norm.data_ptr()
        remember(shape, hidden.data_ptr(), projected.data_ptr(), gains, *gate, *conv, out.data_ptr())
        return out

    def _trained(self, hidden: Tensor, vectors: Tensor) -> Tensor:
        """What `forward` gives, by the compiled forward and backward passes."""
        projected = self._projected(vectors).unflatten(-1, (self.streams + 1, self.hidden))  # type: ignore[no-untyped-call]
        gain = self.query_norm * self.key_norm
        form = Form(self.config.gate == "signed_sqrt", self.eps, MIN_SCORE, self.config.dilation, CONV_EPS)
        conv = (self.conv_norm, self.conv.mT) if self.config.conv else (gain, gain[:, None][:, :0])
        out: Tensor = Remembered.apply(hidden, projected, gain, *conv, form)  # type: ignore[no-untyped-call]
        return out

    def load_demo(self, parameters: Mapping[str, Tensor]) -> None:
        """Takes the parameters of the official demo's module, by its own names (the table is not among them).

        Raises EngramError for a missing name or a shape that does not fit.
        """
        per_stream = range(self.streams)
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
