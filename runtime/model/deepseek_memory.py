"""The memory module as DeepSeek-V4.1 has it, with its released weights (its published inference code).

It is the memory of `memory.py` but for four things: there is no convolution; the norms divide with an eps of 1e-20; a score of
exactly 0 opens the gate by its sign bit, since the root is given the score's sign by copysign; and a dead position, which is
one of an image, has gate 0. Norm weights are kept as q_weight and k_weight, whose product is all that counts.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hashing.base.errors import EngramError
from runtime.model.config import MemoryConfig
from runtime.model.memory import MIN_SCORE, EngramMemory
from runtime.model.pages import BlockBatch

LONGEST_ORDER = 4
BLOCK = 32  # rows and columns of a projection that share a scale


class DeepseekMemory(EngramMemory):
    eps = 1e-20

    def __init__(self, width: int, hidden: int, streams: int, name: str = "memory") -> None:
        super().__init__(MemoryConfig((0,), width, LONGEST_ORDER, conv=False), hidden, streams, name)

    def forward(
        self,
        hidden: Tensor,
        vectors: Tensor,
        cached: BlockBatch | None = None,  # noqa: ARG002 - without a convolution nothing is carried on
        dead: Tensor | None = None,
    ) -> Tensor:
        """(B, T, M, D) What to add to the streams `hidden`, given `vectors` (B, T, E) and which positions are dead (B, T)."""
        keys, value = self._keys_and_value(self.point("e", vectors))
        gate = self._gate(self.point("score", self._score(hidden, keys)))
        if dead is not None:
            gate = gate.masked_fill(dead[..., None, None], 0)
        return self.point("out", self.point("gate", gate) * value)

    def _gate(self, score: Tensor) -> Tensor:
        return torch.sigmoid(score.abs().clamp_min(MIN_SCORE).sqrt().copysign(score))

    @torch.no_grad()
    def load_published(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes a layer's tensors by the names that follow `layers.N.engram.`; the table's are left aside.

        The projection is float8 e4m3 in blocks of 32 × 32 with an e8m0 scale each. Raises EngramError for a missing name or a
        shape that does not fit.
        """
        if missing := [name for name in ("wkv.weight", "wkv.scale", "q_weight", "k_weight") if name not in tensors]:
            raise EngramError(f"the tensors of a V4.1 memory lack {', '.join(missing)}")
        scale = tensors["wkv.scale"].float().repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        rows, columns = self.projection.weight.shape
        loaded = {
            "projection.weight": tensors["wkv.weight"].float() * scale[:rows, :columns],
            "query_norm": tensors["q_weight"].float(),
            "key_norm": tensors["k_weight"].float(),
        }
        for name, parameter in self.named_parameters():
            if loaded[name].shape != parameter.shape:
                raise EngramError(f"{name} has shape {tuple(loaded[name].shape)}, expected {tuple(parameter.shape)}")
            parameter.copy_(loaded[name])
