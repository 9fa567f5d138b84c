"""Shapes: everything that a model's parameters, work and bytes follow from. No weight is ever made of one."""

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.model.config import StreamForm


@dataclass(frozen=True, slots=True)
class GroupedAttention:
    """Attention in which several heads may share their keys and values."""

    hidden: int
    heads: int
    key_heads: int
    normalised: bool  # whether queries and keys have gains, one for each number of a head

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def maps(self) -> int:
        """Numbers of its matrices: queries, keys, values and the output."""
        return self.hidden * (self.heads + 2 * self.key_heads) * self.head_dim + self.hidden * self.hidden

    @property
    def gains(self) -> int:
        return 2 * self.head_dim if self.normalised else 0

    @property
    def products_per_position(self) -> int:
        """Multiply-adds for each position that a token attends to: its scores, and its values mixed by them."""
        return 2 * self.hidden


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """DeepSeek's multi-head latent attention: keys and values of all heads are expanded from one narrow vector.

    The work is that of training and of reading a prompt, where they are expanded for every position.
    """

    hidden: int
    heads: int
    plain_dim: int  # numbers of a head's query and key without positions
    rotary_dim: int  # numbers with them; such a key is shared by the heads
    value_dim: int
    rank: int  # numbers of the narrow vector

    @property
    def maps(self) -> int:
        queries = self.hidden * self.heads * (self.plain_dim + self.rotary_dim)
        narrow = self.hidden * (self.rank + self.rotary_dim)
        expanded = self.rank * self.heads * (self.plain_dim + self.value_dim)
        return queries + narrow + expanded + self.heads * self.value_dim * self.hidden

    @property
    def gains(self) -> int:
        """Those of the narrow vector's norm."""
        return self.rank

    @property
    def products_per_position(self) -> int:
        return self.heads * (self.plain_dim + self.rotary_dim + self.value_dim)


@dataclass(frozen=True, slots=True)
class ExpertsShape:
    routed: int
    per_token: int
    shared: int  # as wide as so many routed ones, and read by every token
    inner: int  # inner width of one


@dataclass(frozen=True, slots=True)
class Backbone:
    """A model's Transformer, without its memory."""

    vocab_size: int
    tied: bool  # whether the output head is the embedding
    blocks: int
    attention: GroupedAttention | LatentAttention
    ffn: int  # inner width of a dense feed-forward network
    experts: ExpertsShape | None
    dense_blocks: int  # first blocks without experts
    stream_form: StreamForm

    @property
    def expert_blocks(self) -> int:
        return max(0, self.blocks - self.dense_blocks) if self.experts else 0


@dataclass(frozen=True, slots=True)
class MemoryShape:
    rows: Mapping[int, int]  # by layer
    columns: int  # rows that a token reads of a layer
    head_dim: int  # numbers of a row
    kernel: int | None  # positions that the convolution reads; None: there is none
    bias: bool  # of the projection

    @property
    def total_rows(self) -> int:
        return sum(self.rows.values())

    @property
    def rows_per_token(self) -> int:
        return len(self.rows) * self.columns


NO_MEMORY = MemoryShape({}, 0, 0, None, bias=False)


@dataclass(frozen=True, slots=True)
class ModelShape:
    name: str
    hidden: int  # D
    streams: int  # M
    backbone: Backbone | None  # None: not published
    memory: MemoryShape
    encoding: str  # in which its tables are stored
    context: int  # positions of a sequence in training
    matrices_only: bool = False  # whether its vectors are not published, and so are not counted
