"""A decoder-only Transformer with Engram memory at chosen blocks, or at none.

The model never hashes and never reads a table: it asks for a layer's vectors when it gets there.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.model.attention import Rotary
from runtime.model.block import Block
from runtime.model.config import ModelConfig
from runtime.model.experts import MixtureOfExperts
from runtime.model.feed_forward import FeedForward
from runtime.model.norm import RMSNorm
from runtime.model.pages import Batch
from runtime.model.row_product import Linear, RowProduct
from runtime.model.streams import StreamHead, StreamSite, collapsed, first_stream
from runtime.vectors import Vectors

LOSS_POSITIONS = 256  # whose logits are made at a time
LOSS_LOGITS = 1 << 22  # at most so many numbers of them: the memory of larger tensors is given back and paged in each time
# Of the memory's projection. Rows start small; at this gain their first steps already count (docs/log.md).
MEMORY_GAIN = 2.0


class TiedHead(nn.Module):
    """The embedding as the output head, with no parameter of its own: a file of tensors takes each only once."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple, which torch does not look into for parameters
        self._product = RowProduct()

    def forward(self, hidden: Tensor) -> Tensor:
        return self._product(hidden, self._embedding[0].weight)


class LanguageModel(nn.Module):
    """How weights start: gains at 1, all others normal with deviation 0.02, but the last projection of each sub-layer with
    0.02 / sqrt(2 · blocks) and the memory's projection with MEMORY_GAIN / sqrt(E); the memory's convolution at zeros, or as the
    demo draws it; the maps of several streams with bases of 0, at which they are as one. The memory is drawn apart, so that
    models with it and without it begin from the same backbone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        seeds = torch.randint(2**62, (2,)).tolist()  # before anything is made, which draws as many numbers as it has weights
        self.embedding = nn.Embedding(config.vocab_size, config.hidden)
        rotary = Rotary(config.head_dim, config.rope_base)
        blocks = [Block(config, number, rotary) for number in range(config.blocks)]
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.stream_head = (
            StreamHead(config.streams, config.hidden) if config.streams > 1 and config.stream_form == "v4" else None
        )
        self.norm = RMSNorm(config.hidden)
        self.head = TiedHead(self.embedding) if config.tied else Linear(config.hidden, config.vocab_size)
        self._draw(*(torch.Generator().manual_seed(seed) for seed in seeds))

    def _draw(self, backbone: torch.Generator, memory: torch.Generator) -> None:
        """Draws the weights of all matrices, the backbone's and the memory's each from a generator of their own."""
        first, last = 0.02, 0.02 / (2 * self.config.blocks) ** 0.5
        drawn: list[tuple[Tensor, float]] = [(self.embedding.weight, first)]
        for block in self.blocks:
            ffn = list(_feed_forward_matrices(block.ffn))
            drawn += [(block.attention.qkv.weight, first), *((matrix, first) for matrix, is_last in ffn if not is_last)]
            drawn += [(block.attention.out.weight, last), *((matrix, last) for matrix, is_last in ffn if is_last)]
            if block.memory is not None:
                std = MEMORY_GAIN / block.memory.config.width**0.5
                nn.init.normal_(block.memory.projection.weight, std=std, generator=memory)
        if isinstance(self.head, nn.Linear):
            drawn.append((self.head.weight, first))
        drawn += [(module.mapping, first) for module in self.modules() if isinstance(module, StreamSite | StreamHead)]
        for matrix, std in drawn:
            nn.init.normal_(matrix, std=std, generator=backbone)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def has_memory(self) -> bool:
        """Whether any block has one."""
        return any(block.memory is not None for block in self.blocks)

    def forward(self, token_ids: Tensor, vectors: Vectors | None, batch: Batch | None = None) -> Tensor:
        """(B, T, D) The hidden states that the head reads, for token ids (B, T).

        With `vectors` None the memory is suppressed in all layers, and where they give None for a layer, in that one.
        With a batch, `token_ids` (1, N) are those of its rows.
        """
        x, read = self.embedding(token_ids), None
        if self.config.streams > 1:
            x = x.unsqueeze(-2).expand(-1, -1, self.config.streams, -1)
        for number, block in enumerate(self.blocks):
            found = vectors(number) if vectors is not None and block.memory is not None else None
            x, read = block(x, read, found, batch.block(number) if batch is not None else None)
        return self.norm(self.collapse(x, read))  # type: ignore[no-any-return]

    def collapse(self, x: Tensor, read: Tensor | None) -> Tensor:
        """(B, T, D) What the final norm reads of a block's streams; `read` is what the block handed on with them, None before
        the first.
        """
        if self.config.streams == 1:
            return x
        if self.stream_head is not None:
            return self.stream_head(x)  # type: ignore[no-any-return]
        return collapsed(x, first_stream(x) if read is None else read)

    def balance_experts(self, rate: float) -> None:
        """Moves the correction bias of every router after a step of the optimiser."""
        for block in self.blocks:
            if isinstance(block.ffn, MixtureOfExperts):
                block.ffn.balance(rate)

    def expert_loads(self) -> list[Tensor]:
        """Of every router the tokens that chose each expert since the last balancing, where they are counted."""
        return [block.ffn.load for block in self.blocks if isinstance(block.ffn, MixtureOfExperts)]

    def logits(self, token_ids: Tensor, vectors: Vectors | None) -> Tensor:
        """(B, T, vocabulary) Logits after every position of whole sequences (B, T)."""
        return self.head(self(token_ids, vectors))  # type: ignore[no-any-return]

    def loss(self, token_ids: Tensor, targets: Tensor, vectors: Vectors | None) -> Tensor:
        """Mean cross-entropy in nats per token of targets (B, T)."""
        return torch.stack(self._losses(token_ids, targets, vectors, "sum")).sum() / targets.numel()

    def token_losses(self, token_ids: Tensor, targets: Tensor, vectors: Vectors | None) -> Tensor:
        """(B, T) Cross-entropy in nats of each of the targets (B, T), as float32."""
        return torch.cat(self._losses(token_ids, targets, vectors, "none")).view_as(targets)

    def _losses(self, token_ids: Tensor, targets: Tensor, vectors: Vectors | None, reduction: str) -> list[Tensor]:
        """Cross-entropies of a few positions at a time: the logits of a whole batch would be by far its largest tensor."""
        together = max(1, min(LOSS_POSITIONS, LOSS_LOGITS // self.config.vocab_size))
        hidden = torch.split(self(token_ids, vectors).flatten(0, 1), together)
        pieces = zip(hidden, torch.split(targets.flatten(), together), strict=True)
        return [functional.cross_entropy(self.head(h).float(), t, reduction=reduction) for h, t in pieces]


def _feed_forward_matrices(ffn: FeedForward | MixtureOfExperts) -> Iterator[tuple[Tensor, bool]]:
    """The matrices of a feed-forward network or of experts, each with whether it is the last before the residual streams."""
    if isinstance(ffn, FeedForward):
        yield from ((ffn.gate_up.weight, False), (ffn.down.weight, True))
        return
    yield from ((ffn.router, False), (ffn.experts.gate_up, False), (ffn.experts.down, True))
    if ffn.shared is not None:
        yield from _feed_forward_matrices(ffn.shared)
