"""Choosing the next token from logits.

In this order, which is vLLM's (`vllm/v1/sample/sampler.py`): repetition penalty, temperature, min-p, top-p, each on what the
one before left. The penalty is CTRL's (Keskar et al. 2019, section 4.1) in the form that `transformers` gave it: the logit of a
token that stood in the prompt or was generated is divided by the penalty where it is above 0, and multiplied where it is below.
Min-p (Nguyen et al. 2024) keeps tokens at least so many times as likely as the likeliest, top-p the likeliest that together
reach p.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from hashing.base.errors import UsageError
from hashing.base.json_object import INT64_MAX


@dataclass(frozen=True, slots=True)
class Sampling:
    max_tokens: int = 64
    temperature: float = 0.0  # 0 takes the likeliest token
    top_p: float = 1.0  # 1 leaves all tokens
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0  # above 1 makes tokens that were seen less likely
    min_p: float = 0.0  # of the likeliest token's probability; 0 leaves all tokens

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("max_tokens", self.max_tokens >= 0, "0 or more"),
            ("temperature", isfinite(self.temperature) and self.temperature >= 0, "a finite number of 0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "0 to 1"),
            (
                "repetition_penalty",
                isfinite(self.repetition_penalty) and self.repetition_penalty > 0,
                "a finite number above 0",
            ),
        ):
            if not fits:
                raise UsageError(f"{name} is {getattr(self, name)}, expected {expected}")
        if self.seed is not None and not 0 <= self.seed <= INT64_MAX:
            raise UsageError(f"the seed is {self.seed}, expected 0 to {INT64_MAX}", hint="any number in the range will do")


class Sampler:
    """Draws tokens for one sequence, with a random generator and a record of seen tokens of its own."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._seen: Tensor | None = None  # (vocabulary,) bool
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def __call__(self, logits: Tensor, seen: Iterable[int] = ()) -> int:
        """A token for logits (vocabulary,); `seen` are the sequence's tokens that the sampler was not told of before."""
        if self._sampling.repetition_penalty != 1:
            logits = self._penalised(logits, seen)
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        ordered, tokens = self._probabilities(logits).sort(descending=True)
        outside = ordered.cumsum(-1) - ordered >= self._sampling.top_p
        chosen = torch.multinomial(ordered.masked_fill(outside, 0), 1, generator=self._random)
        return int(tokens[chosen])

    def _penalised(self, logits: Tensor, seen: Iterable[int]) -> Tensor:
        if self._seen is None:
            self._seen = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        self._seen[list(seen)] = True
        penalty, logits = self._sampling.repetition_penalty, logits.double()
        return torch.where(self._seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)

    def _probabilities(self, logits: Tensor) -> Tensor:
        """(vocabulary,) After temperature and min-p; in float64, where a small temperature is no division by 0."""
        logits = logits.cpu().double()
        probabilities = ((logits - logits.max()) / self._sampling.temperature).softmax(-1)
        if self._sampling.min_p == 0:
            return probabilities
        kept = probabilities.masked_fill(probabilities < self._sampling.min_p * probabilities.max(), 0)
        return kept / kept.sum()
