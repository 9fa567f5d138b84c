"""The loss of a model as its recipe trains it: as it is or compiled by torch, the memory's projection in FP8 or not.

What torch compiles fuses the passes between products: a step of the default model takes five sixths of its time, which is
worth the minute it takes at first in trainings of ten minutes or more (docs/log.md).
"""

import os
import shutil
import warnings
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from hashing.base.errors import EngramError
from runtime.config import Recipe
from runtime.model.float8 import check_float8
from runtime.model.language_model import LanguageModel
from runtime.train.peers import ALONE, Peers

Loss = Callable[[Tensor, Tensor, Mapping[int, Tensor]], Tensor]  # of inputs and targets (B, T) and each layer's vectors
COMPILERS = ("g++", "clang++")


class _ModelLoss(nn.Module):
    """A loss as a module, which DistributedDataParallel wraps."""

    def __init__(self, model: LanguageModel, loss: Loss) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, inputs: Tensor, targets: Tensor, vectors: Mapping[int, Tensor]) -> Tensor:
        return self._loss(inputs, targets, vectors)


def trained_loss(model: LanguageModel, recipe: Recipe, peers: Peers = ALONE) -> nn.Module:
    """The mean loss in nats per token, a Loss computed as the recipe says.

    Where several processes train, its backward pass adds up their gradients of the backbone: the sum and not the mean, in the
    order of ranks, so that they have to the bit what one process has that takes the parts of the batch one after the other.
    Raises EngramError for what this machine cannot do.
    """
    for block in model.blocks if recipe.float8_projection else ():
        if block.memory is not None:
            outputs, inputs = block.memory.projection.weight.shape
            check_float8(model.device, inputs, outputs)
            block.memory.float8 = True

    def loss(inputs: Tensor, targets: Tensor, vectors: Mapping[int, Tensor]) -> Tensor:
        return model.loss(inputs, targets, lambda layer: vectors[layer])

    module = _ModelLoss(model, _compiled(loss, model.device) if recipe.compile else loss)
    if not peers.are_many:
        return module
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "`broadcast_buffers` is deprecated"
        )  # in newer versions; older ones have no other name
        wrapped = DistributedDataParallel(module, broadcast_buffers=False)
    wrapped.register_comm_hook(None, _summed)
    return wrapped


def _compiled(loss: Loss, device: torch.device) -> Loss:
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", ""), *COMPILERS))):
        raise EngramError("recipe.compile needs a C++ compiler, and none is found", hint="install g++, or leave it out")
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # which torch's compiler looks at
    compiled: Loss = torch.compile(loss)
    return compiled


def _summed(_: None, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Each process adds up a part of the gradients, in the order of ranks; `all_reduce` sends as much, in its own order."""
    buffer, count = bucket.buffer(), dist.get_world_size()
    filled = functional.pad(buffer, (0, -len(buffer) % count))
    parts = torch.empty_like(filled)
    dist.all_to_all_single(parts, filled)
    total, *others = parts.chunk(count)
    for other in others:
        total += other
    dist.all_gather([*filled.chunk(count)], total)
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(filled[: len(buffer)])
    return done
