"""A block: memory where it has one, then attention, then the feed-forward network, each added to the residual streams."""

from torch import Tensor

from runtime.model.attention import Attention, Rotary
from runtime.model.config import ModelConfig
from runtime.model.experts import MixtureOfExperts
from runtime.model.feed_forward import FeedForward
from runtime.model.memory import EngramMemory
from runtime.model.norm import RMSNorm
from runtime.model.pages import BlockBatch
from runtime.model.points import Watched
from runtime.model.streams import SingleStream, StreamSite


class Block(Watched):
    """Letters of shapes: B sequences, T positions, M streams, D width; one stream is (B, T, D), several are (B, T, M, D)."""

    def __init__(self, config: ModelConfig, number: int, rotary: Rotary) -> None:
        super().__init__(f"blocks.{number}")
        remembered = config.memory if config.memory and number in config.memory.layers else None
        self.memory = (
            EngramMemory(remembered, config.hidden, config.streams, f"{self.name}.memory") if remembered is not None else None
        )
        self.attention_norm = RMSNorm(config.hidden)
        self.attention = Attention(config, rotary)
        self.attention_site = site(config)
        self.ffn_norm = RMSNorm(config.hidden)
        self.ffn = MixtureOfExperts(config) if config.has_experts(number) else FeedForward(config.hidden, config.ffn)
        self.ffn_site = site(config)

    def forward(
        self, x: Tensor, read: Tensor | None, vectors: Tensor | None, cached: BlockBatch | None
    ) -> tuple[Tensor, Tensor | None]:
        """The streams after the block, and what `StreamSite` hands on to the block after it as `read`.

        `vectors` (B, T, E) are the memory's; None leaves it out.
        """
        x = self.point("in", x)
        if self.memory is not None and vectors is not None:
            x = x + self._remembered(self.memory, x, vectors, cached)
        x, read = self.attention_site(
            x, read, lambda h: self.point("attention", self.attention(self.attention_norm(h), cached))
        )
        x, read = self.ffn_site(x, read, lambda h: self.point("ffn", self._fed(self.ffn_norm(h), cached is not None)))
        return self.point("out", x), None if read is None else self.point("read", read)

    def _fed(self, x: Tensor, decoding: bool) -> Tensor:
        fed: Tensor = self.ffn(x, decoding) if isinstance(self.ffn, MixtureOfExperts) else self.ffn(x)
        return fed

    @staticmethod
    def _remembered(memory: EngramMemory, x: Tensor, vectors: Tensor, cached: BlockBatch | None) -> Tensor:
        added: Tensor = memory(x if x.dim() == 4 else x.unsqueeze(2), vectors, cached)
        return added.view_as(x)


def site(config: ModelConfig) -> SingleStream | StreamSite:
    """How a sub-layer of the model is joined to its streams."""
    return SingleStream() if config.streams == 1 else StreamSite(config.streams, config.hidden, config.stream_form)
