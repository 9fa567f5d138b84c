"""The loss of a model as its recipe trains it: as it is or compiled by torch, the memory's projection in FP8 or not.

What torch compiles fuses the passes between products: a step of the default model takes five sixths of its time, which is
worth the minute it takes at first in trainings of ten minutes or more (docs/log.md).
"""

import os
import shutil
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hashing.base.errors import EngramError
from runtime.config import Recipe
from runtime.model.float8 import check_float8
from runtime.model.language_model import LanguageModel

Loss = Callable[[Tensor, Tensor, Mapping[int, Tensor]], Tensor]  # of inputs and targets (B, T) and each layer's vectors
COMPILERS = ("g++", "clang++")


def trained_loss(model: LanguageModel, recipe: Recipe) -> Loss:
    """The mean loss in nats per token, computed as the recipe says. Raises EngramError for what this machine cannot do."""
    for block in model.blocks if recipe.float8_projection else ():
        if block.memory is not None:
            outputs, inputs = block.memory.projection.weight.shape
            check_float8(model.device, inputs, outputs)
            block.memory.float8 = True

    def loss(inputs: Tensor, targets: Tensor, vectors: Mapping[int, Tensor]) -> Tensor:
        return model.loss(inputs, targets, lambda layer: vectors[layer])

    if not recipe.compile:
        return loss
    if model.device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
        raise EngramError("recipe.compile needs a C++ compiler, and none is found", hint="install g++, or leave it out")
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # which torch's compiler looks at
    compiled: Loss = torch.compile(loss)
    return compiled
