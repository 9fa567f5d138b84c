"""Root-mean-square normalisation: x / sqrt(mean(x²) + eps) · gain over the last dimension.

It is written with the Euclidean norm, since sqrt(D) · sqrt(mean(x²) + eps) = hypot(‖x‖, sqrt(D · eps)). That is four
operations, where torch's own `rms_norm` dispatches two dozen on a CPU and takes twice as long for a single position
(docs/log.md).
"""

import torch
from torch import Tensor, nn


def padded_norm(x: Tensor, eps: float) -> Tensor:
    """(…, 1) hypot(‖x‖, sqrt(D · eps)) for x (…, D): dividing by it gives vectors of length 1, or less where x is near zero."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    padded: Tensor = torch.hypot(norm, norm.new_full((), (x.shape[-1] * eps) ** 0.5))
    return padded


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """(…, D) x normalised and scaled by `gain`, of shape (D,) or the last dimensions of x."""
    return x / padded_norm(x, eps) * (gain * x.shape[-1] ** 0.5)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
