"""Choosing the next token from logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hashing.base.errors import UsageError
from hashing.base.json_object import INT64_MAX


@dataclass(frozen=True, slots=True)
class Sampling:
    max_tokens: int = 64
    temperature: float = 0.0  # 0 takes the likeliest token
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 0 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UsageError(f"max_tokens and temperature are at least 0 and top_p above 0 and at most 1, found {self}")
        if self.seed is not None and not 0 <= self.seed <= INT64_MAX:
            raise UsageError(f"the seed is {self.seed}, expected 0 to {INT64_MAX}", hint="any number in the range will do")


class Sampler:
    """Draws tokens for one sequence, with a random generator of its own."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def __call__(self, logits: Tensor) -> int:
        """A token for logits (vocabulary,)."""
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        probabilities = (logits.float().cpu() / self._sampling.temperature).softmax(-1)
        ordered, tokens = probabilities.sort(descending=True)
        outside = ordered.cumsum(-1) - ordered >= self._sampling.top_p
        chosen = torch.multinomial(ordered.masked_fill(outside, 0), 1, generator=self._random)
        return int(tokens[chosen])
