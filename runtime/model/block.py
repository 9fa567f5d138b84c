"""A block: memory where it has one, then attention, then the feed-forward network, each added to the residual stream."""

from torch import Tensor

from runtime.model.attention import Attention, Rotary
from runtime.model.cache import BlockCache
from runtime.model.config import ModelConfig
from runtime.model.feed_forward import FeedForward
from runtime.model.memory import EngramMemory
from runtime.model.norm import RMSNorm
from runtime.model.points import Watched


class Block(Watched):
    def __init__(self, config: ModelConfig, number: int, rotary: Rotary) -> None:
        super().__init__(f"blocks.{number}")
        remembered = config.memory if config.memory and number in config.memory.layers else None
        self.memory = EngramMemory(remembered, config.hidden, name=f"{self.name}.memory") if remembered else None
        self.attention_norm = RMSNorm(config.hidden)
        self.attention = Attention(config, rotary)
        self.ffn_norm = RMSNorm(config.hidden)
        self.ffn = FeedForward(config)

    def forward(self, x: Tensor, vectors: Tensor | None, cache: BlockCache | None) -> Tensor:
        """Takes x (B, T, D) to the same shape; `vectors` (B, T, E) are the memory's, None leaves it out."""
        x = self.point("in", x)
        if self.memory is not None and vectors is not None:
            x = x + self.memory(x.unsqueeze(2), vectors, cache).squeeze(2)
        x = x + self.point("attention", self.attention(self.attention_norm(x), cache))
        x = x + self.point("ffn", self.ffn(self.ffn_norm(x)))
        return self.point("out", x)
