"""The memory module: n-gram vectors, gated by the hidden state, added to the residual stream (paper, section 2.3; the demo).

For each of M residual streams, with e the concatenated vectors of a position and h the stream:

    key_m = W_K^(m) e        value = W_V e         (one fused projection: the keys of all streams, then the value)
    s     = ⟨RMSNorm(h_m), RMSNorm(key_m)⟩ / sqrt(D)
    v_m   = gate(s) · value
    out_m = v_m + SiLU(conv(RMSNorm(v_m)))         depthwise, causal, dilated by the longest order

The convolution is written as shifted products: four multiply-adds are faster than a depthwise conv1d on a CPU and take the
values that precede the sequence as they are, so decoding in pieces computes what the whole sequence would. On a CPU decoding
and training have compiled kernels (`step_kernel.py`, `memory_kernel.py`).
"""

from collections.abc import Iterator, Mapping
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from hashing.base.errors import EngramError
from runtime.model.config import MemoryConfig
from runtime.model.float8 import MULTIPLE, Float8Linear
from runtime.model.memory_kernel import Form, Remembered, is_trained
from runtime.model.pages import BlockBatch
from runtime.model.points import Watched
from runtime.model.row_product import Linear
from runtime.model.step_kernel import is_decoded, remember

GATE_EPS = torch.finfo(torch.float32).eps
CONV_EPS = 1e-5
MIN_SCORE = 1e-6
GATES = ("none", "sigmoid", "signed_sqrt")  # as compiled code numbers them


class EngramMemory(Watched):
    """Letters of shapes: B sequences, T positions, M streams of width D, vectors of width E."""

    eps = GATE_EPS  # of the norms that a score is made of

    def __init__(self, config: MemoryConfig, hidden: int, streams: int = 1, name: str = "memory") -> None:
        super().__init__(name)
        self.config, self.hidden, self.streams = config, hidden, streams
        self.projection = Linear(config.width, (streams + 1) * hidden, config.bias)
        self.float8 = False  # whether training computes the projection in FP8
        self.key_norm = nn.Parameter(torch.ones(streams, hidden))
        self.query_norm = nn.Parameter(torch.ones(streams, hidden))
        if config.conv:
            initial = torch.zeros if config.conv_zero_init else _conv_init
            self.conv_norm = nn.Parameter(torch.ones(streams, hidden))
            self.conv = nn.Parameter(initial(streams, hidden, config.kernel))

    def forward(self, hidden: Tensor, vectors: Tensor, cached: BlockBatch | None = None) -> Tensor:
        """(B, T, M, D) What to add to the streams `hidden` (B, T, M, D), given `vectors` (B, T, E).

        They are of whole sequences, or (1, N, …) of the rows of a batch.
        """
        if cached is not None and self.watch is None and is_decoded(hidden):
            return self._decoded(hidden, vectors, cached)
        if cached is None and self.watch is None and self.config.gate != "none" and is_trained(hidden):
            return self._trained(hidden, vectors)
        keys, value = self._keys_and_value(self.point("e", vectors))
        gate = self.point("gate", self._gate(self.point("score", self._score(hidden, keys))))
        gated = gate * value
        if self.config.conv:
            gated = gated + self.point("conv", functional.silu(self._convolved(gated, cached)))
        return self.point("out", gated)

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

    def _convolved(self, gated: Tensor, cached: BlockBatch | None) -> Tensor:
        """The convolution (B, T, M, D) of gated values, which a batch's rows leave in their pages."""
        normalised = functional.rms_norm(gated, (self.hidden,), eps=CONV_EPS) * self.conv_norm
        earlier = self._earlier(normalised) if cached is None else self._kept(normalised, cached)
        *others, last = self.conv.unbind(-1)
        mixed = normalised * last
        for before, tap in zip(earlier, others, strict=True):
            mixed = torch.addcmul(mixed, before, tap)
        return mixed

    def _distances(self) -> range:
        """How far back each tap of the convolution reads, but for the last, which reads the position itself."""
        return range(self.config.lookback, 0, -self.config.dilation)

    def _earlier(self, normalised: Tensor) -> Iterator[Tensor]:
        """For each distance the values (B, T, M, D) so far before each position of whole sequences."""
        length = normalised.shape[1]
        padded = functional.pad(normalised, (0, 0, 0, 0, self.config.lookback, 0))
        for distance in self._distances():
            first = self.config.lookback - distance
            yield padded[:, first : first + length]

    def _kept(self, normalised: Tensor, cached: BlockBatch) -> Iterator[Tensor]:
        """For each distance the values (1, N, M, D) so far before each row of a batch; its own go to its pages."""
        pages = cached.pages.convolved
        assert pages is not None, "the pages have room for what this memory convolves"
        page, place, live = cached.places()
        pages[page[live], place[live]] = normalised[0, live]
        for distance in self._distances():
            page, place, exists = cached.places(distance)
            yield torch.where(exists[:, None, None], pages[page, place], 0)[None]

    def _decoded(self, hidden: Tensor, vectors: Tensor, cached: BlockBatch) -> Tensor:
        """What `forward` gives for the rows of a batch, hidden (1, N, M, D), by the compiled kernel."""
        projected, out = self.projection(vectors), torch.empty_like(hidden)
        assert projected.dtype == torch.float32, "decoding is not under autocast: compiled code reads float32"
        shape = hidden.shape[1], self.streams, self.hidden
        gate = GATES.index(self.config.gate), self.eps, MIN_SCORE, self.query_norm.data_ptr(), self.key_norm.data_ptr()
        places, pages, conv = cached.batch.places, cached.pages.convolved, (0, 0, 0, 0, 0)
        if self.config.conv:
            assert pages is not None, "the pages have room for what this memory convolves"
            taps, gain = self.conv.data_ptr(), self.conv_norm.data_ptr()
            conv = pages.shape[0], self.config.kernel, pages.data_ptr(), taps, gain
        remember(
            shape, places, hidden.data_ptr(), projected.data_ptr(), gate, conv, self.config.dilation, CONV_EPS, out.data_ptr()
        )
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
