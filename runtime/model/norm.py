"""Root-mean-square normalisation with a gain."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.model.step_kernel import is_decoded, normalise


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Takes x (B, T, D) to the same shape."""
        if is_decoded(x):
            out = torch.empty_like(x)
            size = x.shape[-1]
            normalise(x.data_ptr(), self.weight.data_ptr(), out.data_ptr(), x.numel() // size, size, self.eps)
            return out
        return functional.rms_norm(x, x.shape[-1:], self.weight, self.eps)
