"""The shapes of a model: ModelConfig for the Transformer, MemoryConfig for the memory in it."""

from dataclasses import dataclass
from typing import Literal

from hashing.base.errors import EngramError

Gate = Literal["signed_sqrt", "sigmoid", "none"]
StreamForm = Literal["v4", "single_pass"]


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    layers: tuple[int, ...]  # blocks that have a memory, counted from 0
    width: int  # E, the numbers of a position's vector: columns · head_dim
    dilation: int  # N, the longest order
    gate: Gate = "signed_sqrt"  # the form that the released weights need; "sigmoid" is the paper's; "none" keeps it open
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
    kv_heads: int | None = None  # of keys and values, each shared by as many heads; None: as many as there are heads
    qk_norm: bool = False  # whether queries and keys are normalised, head by head
    streams: int = 1  # M, residual streams
    stream_form: StreamForm = "v4"  # "single_pass" is V4.1's
    experts: int = 0  # routed experts of a block; 0: a dense feed-forward network
    experts_per_token: int = 2
    shared_experts: int = 1  # as wide as so many routed ones, and read by every token
    expert_ffn: int = 128  # inner width of an expert
    dense_blocks: int = 1  # first blocks that have no experts
    router_scale: float = 1.0  # of the weights of the experts chosen

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.hidden, self.blocks, self.heads, self.ffn) < 1:
            raise EngramError(f"every size of a model is at least 1, found {self}")
        if self.hidden % (2 * self.heads):
            raise EngramError(f"hidden size {self.hidden} does not split into {self.heads} heads of even width")
        if self.heads % (self.kv_heads or self.heads):
            raise EngramError(f"{self.heads} heads do not share {self.kv_heads} heads of keys and values evenly")
        if self.streams < 1:
            raise EngramError(f"a model has at least one residual stream, found {self.streams}")
        if self.experts and not 0 < self.experts_per_token <= self.experts:
            raise EngramError(f"{self.experts_per_token} experts per token are not 1 to {self.experts}")
        layers = self.memory.layers if self.memory else ()
        if any(not 0 <= layer < self.blocks for layer in layers):
            raise EngramError(f"memory layers {list(layers)} are not all among the {self.blocks} blocks")

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.heads

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    def has_experts(self, block: int) -> bool:
        """Whether a block's feed-forward network is a mixture of experts."""
        return self.experts > 0 and block >= self.dense_blocks
