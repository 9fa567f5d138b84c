"""The shapes of a model: ModelConfig for the Transformer, MemoryConfig for the memory in it."""

from dataclasses import dataclass
from typing import Literal

from hashing.base.errors import EngramError

Gate = Literal["signed_sqrt", "sigmoid"]


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    layers: tuple[int, ...]  # blocks that have a memory, counted from 0
    width: int  # E, the numbers of a position's vector: columns · head_dim
    dilation: int  # N, the longest order
    gate: Gate = "signed_sqrt"  # the form that the released weights need; "sigmoid" is the paper's
    conv: bool = True
    kernel: int = 4
    conv_zero_init: bool = True  # as in the paper; the demo draws the convolution's weights
    bias: bool = False

    def __post_init__(self) -> None:
        if min(self.width, self.dilation, self.kernel) < 1:
            raise EngramError(f"width, dilation and kernel of a memory are at least 1, found {self}")

    @property
    def lookback(self) -> int:
        """How many positions before the current one the convolution reads."""
        return (self.kernel - 1) * self.dilation


@dataclass(frozen=True, slots=True)
class ModelConfig:
    vocab_size: int
    hidden: int  # D, the width of the residual stream
    blocks: int
    heads: int
    ffn: int  # inner width of the feed-forward network
    memory: MemoryConfig | None  # None: a model without memory
    tied: bool = False  # the output head is the embedding
    rope_base: float = 10_000.0

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.hidden, self.blocks, self.heads, self.ffn) < 1:
            raise EngramError(f"every size of a model is at least 1, found {self}")
        if self.hidden % (2 * self.heads):
            raise EngramError(f"hidden size {self.hidden} does not split into {self.heads} heads of even width")
        layers = self.memory.layers if self.memory else ()
        if any(not 0 <= layer < self.blocks for layer in layers):
            raise EngramError(f"memory layers {list(layers)} are not all among the {self.blocks} blocks")

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.heads
