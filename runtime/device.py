"""What to compute on, and in which numbers."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from runtime.train.presets import Precision


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_precision(device: torch.device) -> Precision:
    """What products are fastest in: bfloat16 where there are units for it."""
    return "bfloat16" if device.type == "cuda" or torch.cpu._is_amx_tile_supported() else "float32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
