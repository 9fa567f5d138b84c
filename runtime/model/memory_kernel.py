"""What follows the memory's projection, forward and backward, compiled for training on a CPU.

As torch operations, gate and convolution are thirty passes over tensors as large as the residual stream, and took as long as
the projection itself (docs/log.md). Here a sequence's positions are passed over once forward and twice backward, while what
is in hand stays in the first cache. `memory.py` says what is computed; with v the gated value, n = RMSNorm(v) · gain
and c = conv(n), the gradients follow from g, that of out = v + SiLU(c):

    ∂c = g · SiLU'(c)         ∂n = the convolution of ∂c, run backward in time
    ∂v = g + r (u − v r² mean(u v))     with u = ∂n · gain and r = 1 / RMS(v)
    ∂gate = Σ ∂v · value      ∂value = Σ over streams of gate · ∂v
    ∂s = ∂gate · gate (1 − gate) · (1 for the sigmoid; 1 / (2 sqrt|s|) for the signed root, 0 below its floor)

and ∂h, ∂key as those of a product of two normalised vectors. Gradients of gains and taps are summed by sequence first and over
sequences last, so that no number depends on how many threads there are.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from hashing.base.cores import CORES
from runtime.model.step_kernel import SUMS

LOG2_E = 1.4426950408889634
LARGEST = 126  # of the exponents of 2 that are taken
EXPONENT_BIAS = 127  # of a float32, whose exponent begins at bit 23


def is_trained(hidden: Tensor) -> bool:
    """Whether compiled passes take streams (B, T, M, D): float32 on a CPU, with gradients, and torch compiling none itself."""
    wanted = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return wanted and hidden.is_cpu and hidden.dtype == torch.float32


@intrinsic
def _from_bits(typing_context: Any, number: Any) -> Any:
    """The float32 that has these bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return types.float32(types.int32), generate


@njit(cache=True, nogil=True, error_model="numpy")
def _sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + e^-x) to about 2e-7, in operations that have vector instructions; the power of 2 is a polynomial."""
    power = np.float32(min(max(np.float32(-LOG2_E) * x, np.float32(-LARGEST)), np.float32(LARGEST)))
    whole = np.int32(np.int32(power + np.float32(LARGEST + 0.5)) - np.int32(LARGEST))
    rest = np.float32(power - np.float32(whole))  # in [-0.5, 0.5]
    series = np.float32(1.5403530e-4)  # ln(2)^n / n!, from n = 6 down
    series = series * rest + np.float32(1.3333558e-3)
    series = series * rest + np.float32(9.6181291e-3)
    series = series * rest + np.float32(5.5504109e-2)
    series = series * rest + np.float32(2.4022651e-1)
    series = series * rest + np.float32(6.9314718e-1)
    series = series * rest + np.float32(1)
    return np.float32(1) / (np.float32(1) + series * _from_bits(np.int32((whole + EXPONENT_BIAS) << 23)))


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _inverse_rms(x, eps):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(x.shape[0]):
        total += x[i] * x[i]
    return np.float32(1 / math.sqrt(total / x.shape[0] + eps))


@njit(cache=True, nogil=True, error_model="numpy")
def _gate(score, signed_root, least):  # type: ignore[no-untyped-def]
    """The gate of a score, and the derivative of the number whose sigmoid it is."""
    slope = np.float32(1)
    if signed_root:
        root = np.float32(math.sqrt(max(abs(score), least)))
        slope = np.float32(0.5) / root if abs(score) >= least else np.float32(0)
        score = np.sign(score) * root
    return np.float32(1 / (1 + math.exp(-score))), slope


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _scored(hidden, key, gain, eps):  # type: ignore[no-untyped-def]
    """1 / RMS of a stream and of its key (D,), and their score; `gain` (D,) is the product of both gains."""
    product = np.float32(0)
    for i in range(hidden.shape[0]):
        product += hidden[i] * key[i] * gain[i]
    query_scale, key_scale = _inverse_rms(hidden, eps), _inverse_rms(key, eps)
    return query_scale, key_scale, np.float32(product * query_scale * key_scale / math.sqrt(hidden.shape[0]))


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _convolve(mixed, normalised, m, taps, t, dilation):  # type: ignore[no-untyped-def]
    """Fills `mixed` (D,) with the convolution at position t of stream m of `normalised` (T, M, D)."""
    last = taps.shape[0] - 1
    for i in range(mixed.shape[0]):
        mixed[i] = normalised[t, m, i] * taps[last, i]
    for tap in range(last):
        before = t - (last - tap) * dilation
        if before >= 0:
            for i in range(mixed.shape[0]):
                mixed[i] += normalised[before, m, i] * taps[tap, i]


@njit(cache=True, nogil=True, fastmath=SUMS, error_model="numpy")
def forward(hidden, projected, gain, conv_gain, taps, options, kept, out):  # type: ignore[no-untyped-def]
    """Fills `out` (B, T, M, D), and what the gradients need, for streams `hidden` (B, T, M, D) and `projected` (B, T, M+1, D).

    `gain` and `conv_gain` are (M, D), `taps` (M, kernel, D). `kept` is `normalised` and `mixed` (B, T, M, D).
    """
    signed_root, eps, least, dilation, conv_eps = options
    normalised, mixed = kept
    batch, length, streams, size = hidden.shape
    for b in range(batch):
        for m in range(streams):
            for t in range(length):
                value, result = projected[b, t, streams], out[b, t, m]
                _, _, score = _scored(hidden[b, t, m], projected[b, t, m], gain[m], eps)
                gate, _ = _gate(score, signed_root, least)
                for i in range(size):
                    result[i] = gate * value[i]
                if taps.shape[1] > 0:
                    scale, here, sums = _inverse_rms(result, conv_eps), normalised[b, t, m], mixed[b, t, m]
                    for i in range(size):
                        here[i] = result[i] * scale * conv_gain[m, i]
                    _convolve(sums, normalised[b], m, taps[m], t, dilation)
                    for i in range(size):
                        result[i] += sums[i] * _sigmoid(sums[i])


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _conv_gradient(normalised, m, taps, taps_gradient, t, dilation, through, out):  # type: ignore[no-untyped-def]
    """Fills `out` (D,) with the gradient of the normalised value at position t, and adds to that of the taps (kernel, D).

    `normalised` (T, M, D) is what stream m's convolution read, `through` (T, D) the gradient of its sums at every position.
    """
    last = taps.shape[0] - 1
    for i in range(out.shape[0]):
        out[i] = through[t, i] * taps[last, i]
        taps_gradient[last, i] += through[t, i] * normalised[t, m, i]
    for tap in range(last):
        distance = (last - tap) * dilation
        if t + distance < through.shape[0]:
            for i in range(out.shape[0]):
                out[i] += through[t + distance, i] * taps[tap, i]
                taps_gradient[tap, i] += through[t + distance, i] * normalised[t, m, i]


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _norm_gradient(gate, value, conv_gain, gain_gradient, conv_eps, gradient):  # type: ignore[no-untyped-def]
    """Turns `gradient` (D,), that of the normalised value, into that of the gated value; adds to the gain's."""
    size, squares, along = value.shape[0], np.float32(0), np.float32(0)
    for i in range(size):
        v = gate * value[i]
        squares += v * v
        along += gradient[i] * conv_gain[i] * v
    scale = np.float32(1 / math.sqrt(squares / size + conv_eps))
    pull = along * scale * scale / size
    for i in range(size):
        v = gate * value[i]
        gain_gradient[i] += gradient[i] * v * scale
        gradient[i] = scale * (gradient[i] * conv_gain[i] - v * pull)


@njit(forceinline=True, fastmath=SUMS, error_model="numpy")
def _score_gradient(hidden, key, gain, scaled, eps, hidden_gradient, key_gradient, gain_gradient):  # type: ignore[no-untyped-def]
    """Sets the gradients of a stream and its key (D,), and adds to that of the gain, for `scaled`: the score's gradient."""
    query_scale, key_scale, score = _scored(hidden, key, gain, eps)
    size = hidden.shape[0]
    together = np.float32(scaled * query_scale * key_scale / math.sqrt(size))
    query_pull = np.float32(scaled * score * query_scale * query_scale / size)
    key_pull = np.float32(scaled * score * key_scale * key_scale / size)
    for i in range(size):
        hidden_gradient[i] = together * gain[i] * key[i] - query_pull * hidden[i]
        key_gradient[i] = together * gain[i] * hidden[i] - key_pull * key[i]
        gain_gradient[i] += together * hidden[i] * key[i]


@njit(cache=True, nogil=True, fastmath=SUMS, error_model="numpy")
def backward(hidden, projected, gain, conv_gain, taps, options, kept, gradient, gradients):  # type: ignore[no-untyped-def]
    """Fills `gradients` for that of the output, `gradient` (B, T, M, D): those of hidden, projected, and, by sequence, of
    gain (B, M, D), conv_gain (B, M, D) and taps (B, M, kernel, D); the last four begin as zeros.
    """
    signed_root, eps, least, dilation, conv_eps = options
    normalised, mixed = kept
    of_hidden, of_projected, of_gain, of_conv_gain, of_taps = gradients
    batch, length, streams, size = hidden.shape
    through, here = np.empty((length, size), np.float32), np.empty(size, np.float32)
    for b in range(batch):
        for m in range(streams):
            for t in range(length if taps.shape[1] > 0 else 0):
                for i in range(size):
                    c = mixed[b, t, m, i]
                    opened = _sigmoid(c)
                    through[t, i] = gradient[b, t, m, i] * (opened + c * opened * (np.float32(1) - opened))
            for t in range(length):
                value, key = projected[b, t, streams], projected[b, t, m]
                _, _, score = _scored(hidden[b, t, m], key, gain[m], eps)
                gate, slope = _gate(score, signed_root, least)
                here[:] = 0
                if taps.shape[1] > 0:
                    _conv_gradient(normalised[b], m, taps[m], of_taps[b, m], t, dilation, through, here)
                    _norm_gradient(gate, value, conv_gain[m], of_conv_gain[b, m], conv_eps, here)
                of_gate = np.float32(0)
                for i in range(size):
                    whole = here[i] + gradient[b, t, m, i]
                    of_gate += whole * value[i]
                    of_projected[b, t, streams, i] += gate * whole
                scaled = np.float32(of_gate * gate * (1 - gate) * slope)
                given = hidden[b, t, m], key, gain[m]
                _score_gradient(*given, scaled, eps, of_hidden[b, t, m], of_projected[b, t, m], of_gain[b, m])


@dataclass(frozen=True, slots=True)
class Form:
    """How a memory's gate and convolution are computed."""

    signed_root: bool  # whether the gate is that of the released models
    eps: float  # of the norms that a score is made of
    least: float  # |score| that the signed root takes, at least
    dilation: int
    conv_eps: float

    @property
    def options(self) -> tuple[bool, np.float32, np.float32, int, np.float32]:
        return self.signed_root, np.float32(self.eps), np.float32(self.least), self.dilation, np.float32(self.conv_eps)


class Remembered(torch.autograd.Function):
    """What the memory adds to its streams, given its projection, with gradients of the first order."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, projected: Tensor, gain: Tensor, conv_gain: Tensor, taps: Tensor, form: Form
    ) -> Tensor:
        """(B, T, M, D) float32, of hidden (B, T, M, D) and projected (B, T, M+1, D).

        `gain` (M, D) is the product of both gains of the score, `conv_gain` (M, D) that of the convolution's norm, and `taps`
        (M, kernel, D) its weights; a kernel of 0 taps is no convolution.
        """
        given = [tensor.detach().float().contiguous() for tensor in (hidden, projected, gain, conv_gain, taps)]
        kept = [torch.empty_like(given[0]) if taps.shape[1] else given[0][..., :0] for _ in range(2)]
        out = torch.empty_like(given[0])
        arrays = [tensor.numpy() for tensor in (*given, *kept, out)]

        def some(first: int, last: int) -> None:
            h, p, *others, normalised, mixed, result = arrays
            each = [a[first:last] for a in (h, p, normalised, mixed, result)]
            forward(each[0], each[1], *others, form.options, (each[2], each[3]), each[4])

        _by_sequence(len(hidden), some)
        ctx.save_for_backward(*given, *kept)
        ctx.form, ctx.dtype = form, projected.dtype
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, projected, gain, conv_gain, taps, *kept = ctx.saved_tensors
        batch = len(hidden)
        of_gains = [torch.zeros(batch, *tensor.shape) for tensor in (gain, conv_gain, taps)]
        gradients = [torch.empty_like(hidden), torch.zeros_like(projected), *of_gains]
        given = [tensor.numpy() for tensor in (hidden, projected, gain, conv_gain, taps)]
        by_sequence = [tensor.numpy() for tensor in (*kept, gradient.contiguous(), *gradients)]

        def some(first: int, last: int) -> None:
            normalised, mixed, given_gradient, *results = (array[first:last] for array in by_sequence)
            h, p = given[0][first:last], given[1][first:last]
            backward(h, p, *given[2:], ctx.form.options, (normalised, mixed), given_gradient, tuple(results))

        _by_sequence(batch, some)
        return gradients[0], gradients[1].to(ctx.dtype), *(tensor.sum(0) for tensor in of_gains), None


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, thread_name_prefix="memory")


def _by_sequence(batch: int, some: Callable[[int, int], None]) -> None:
    """Calls `some` for ranges of sequences that cover the batch, on as many threads as torch uses."""
    count = min(batch, torch.get_num_threads(), CORES)
    edges = [batch * part // count for part in range(count + 1)]
    if count == 1:
        some(0, batch)
    else:
        list(_threads().map(some, edges[:-1], edges[1:]))
