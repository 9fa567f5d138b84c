"""Residual streams: how a sub-layer reads from M of them and writes to them (manifold-constrained hyper-connections).

M streams h_k of width D are carried side by side. Before a sub-layer f, one linear map of all of them, normalised together,
gives three sets of weights (arXiv 2512.24880, in the form of DeepSeek-V4's code):

    v = RMSNorm([h_1 … h_M])                 no gain
    pre, post, comb = W v · scale + base      scale is one number for each of the three
    pre  = sigmoid(pre) + ε                  (M)     how much of each stream the sub-layer reads
    post = 2 · sigmoid(post)                 (M)     how much of its output each stream takes
    comb = balanced(softmax(comb) + ε)       (M, M)  how the streams are mixed: rows and columns that sum to one
    h_k ← post_k · f(Σ_j pre_j h_j) + Σ_j comb[j, k] h_j

At the start every stream is the token's embedding, and a map of the same kind as pre collapses them at the end. V4.1 differs
("single pass"): a sub-layer reads by the pre of the sub-layer before, the first reads the first stream alone, and the last pre
collapses the end. A model with one stream has none of this: its sub-layers are added to the stream.

Letters of shapes: B sequences, T positions, M streams, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.model.config import StreamForm

EPS = 1e-6  # of the norm, and ε above
BALANCINGS = 20  # of the columns, and with them of the rows but for the first time, which softmax has done
FIRST_SCALE = 0.01

SubLayer = Callable[[Tensor], Tensor]
"""Takes (B, T, D) to the same shape."""


class SingleStream(nn.Module):
    """The plain residual connection: what the sub-layer gives is added to what it reads."""

    def forward(self, x: Tensor, read: Tensor | None, sub_layer: SubLayer) -> tuple[Tensor, Tensor | None]:
        return x + sub_layer(x), read


class StreamSite(nn.Module):
    """The connection of one sub-layer to M streams."""

    def __init__(self, streams: int, hidden: int, form: StreamForm) -> None:
        super().__init__()
        self.streams, self.form = streams, form
        self.sizes = [streams, streams, streams * streams]
        self.mapping = nn.Parameter(torch.empty(sum(self.sizes), streams * hidden))
        self.base = nn.Parameter(torch.zeros(sum(self.sizes)))
        self.scale = nn.Parameter(torch.full((3,), FIRST_SCALE))

    def forward(self, x: Tensor, read: Tensor | None, sub_layer: SubLayer) -> tuple[Tensor, Tensor | None]:
        """The streams (B, T, M, D) after the sub-layer, and the weights (B, T, M) by which the next one reads in V4.1's form.

        `read` are those weights of the sub-layer before; None before the first.
        """
        pre, post, comb = self.weights(x)
        if self.form == "single_pass":
            read, pre = pre, first_stream(x) if read is None else read
        y = sub_layer(collapsed(x, pre))
        mixed = comb.to(x.dtype).transpose(-1, -2) @ x
        return mixed + post.to(x.dtype).unsqueeze(-1) * y.unsqueeze(-2), read

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pre (B, T, M), post (B, T, M) and comb (B, T, M, M) for streams (B, T, M, D), all float32."""
        with torch.autocast(x.device.type, enabled=False):
            mapped = torch.split(functional.linear(_normalised(x), self.mapping), self.sizes, dim=-1)
            bases = torch.split(self.base, self.sizes)
            pre, post, comb = (part * scale + base for part, scale, base in zip(mapped, self.scale, bases, strict=True))
            mixing = balanced(comb.unflatten(-1, (self.streams, self.streams)).softmax(-1) + EPS)
            return pre.sigmoid() + EPS, 2 * post.sigmoid(), mixing


class StreamHead(nn.Module):
    """The learned map that collapses M streams at the end of a model of V4's form."""

    def __init__(self, streams: int, hidden: int) -> None:
        super().__init__()
        self.mapping = nn.Parameter(torch.empty(streams, streams * hidden))
        self.base = nn.Parameter(torch.zeros(streams))
        self.scale = nn.Parameter(torch.full((1,), FIRST_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) One stream, of streams (B, T, M, D)."""
        with torch.autocast(x.device.type, enabled=False):
            pre = (functional.linear(_normalised(x), self.mapping) * self.scale + self.base).sigmoid() + EPS
        return collapsed(x, pre)


def collapsed(x: Tensor, weights: Tensor) -> Tensor:
    """(B, T, D) The streams (B, T, M, D), weighted (B, T, M) and added up."""
    return (weights.to(x.dtype).unsqueeze(-2) @ x).squeeze(-2)


def first_stream(x: Tensor) -> Tensor:
    """Weights (B, T, M) that read the first of the streams (B, T, M, D) alone."""
    return functional.one_hot(torch.zeros(x.shape[:-2], dtype=torch.long, device=x.device), x.shape[-2]).to(x.dtype)


def balanced(comb: Tensor) -> Tensor:
    """Positive matrices (…, M, M), divided by their sums of columns and rows in turn (Sinkhorn), columns first and last."""
    comb = comb / (comb.sum(-2, keepdim=True) + EPS)
    for _ in range(BALANCINGS - 1):
        comb = comb / (comb.sum(-1, keepdim=True) + EPS)
        comb = comb / (comb.sum(-2, keepdim=True) + EPS)
    return comb


def _normalised(x: Tensor) -> Tensor:
    """(B, T, M·D) float32: all streams of a position, normalised together."""
    flat = x.flatten(-2).float()
    return functional.rms_norm(flat, flat.shape[-1:], eps=EPS)
