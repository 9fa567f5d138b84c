"""The memory's projection in FP8, as the paper trains it (section 2.4), on hardware that has such products.

A tensor is scaled so that its largest number is the format's largest, and is rounded to it: inputs and weights to e4m3, which
has more digits, and gradients to e5m2, which reaches further. Products are summed up in float32 by `torch._scaled_mm`, whose
sizes have to be multiples of 16; parameters, and what is added up over steps, stay float32.
"""

from typing import Any

import torch
from torch import Tensor

from hashing.base.errors import EngramError

MULTIPLE = 16
LEAST_LARGEST = 1e-12  # of a tensor's numbers: one of zeros has a scale too
FIRST_CAPABILITY = (8, 9)  # of CUDA devices with FP8 products


def check_float8(device: torch.device, inputs: int, outputs: int) -> None:
    """Raises EngramError where a projection from `inputs` numbers to `outputs` cannot be computed in FP8."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < FIRST_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise EngramError(f"{name} has no products in FP8", hint="leave recipe.float8_projection out")
    if inputs % MULTIPLE or outputs % MULTIPLE:
        raise EngramError(
            f"a projection from {inputs} numbers to {outputs} is not for FP8: both are to be multiples of {MULTIPLE}",
            hint="set memory.head_dim and model.hidden to multiples of 16, or leave recipe.float8_projection out",
        )


class Float8Linear(torch.autograd.Function):
    """`functional.linear` without a bias, with all three of its products in FP8."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """(N, outputs) bfloat16, for x (N, inputs) and weight (outputs, inputs)."""
        ctx.save_for_backward(x, weight)
        return _product(x, weight.mT, torch.float8_e4m3fn)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x = _product(gradient, weight, torch.float8_e5m2)
        of_weight = _product(gradient.mT, x, torch.float8_e5m2)
        return of_x.to(x.dtype), of_weight.to(weight.dtype)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """(I, K) bfloat16, for `a` (I, J), rounded to `dtype`, and `b` (J, K), rounded to e4m3."""
    (left, left_scale), (right, right_scale) = _rounded(a, dtype), _rounded(b.mT, torch.float8_e4m3fn)
    out: Tensor = torch._scaled_mm(left, right.mT, scale_a=left_scale, scale_b=right_scale, out_dtype=torch.bfloat16)
    return out


def _rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x in an FP8 format, contiguous, and what its numbers are to be multiplied with."""
    scale = x.detach().abs().amax().float().clamp_min(LEAST_LARGEST) / torch.finfo(dtype).max
    return (x / scale).to(dtype).contiguous(), scale
