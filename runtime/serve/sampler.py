"""Choosing the next token from logits.

In this order, which is vLLM's (`vllm/v1/sample/sampler.py`): logit bias, penalties, temperature, then min-p, top-k and top-p,
each on what the one before left. The repetition penalty is CTRL's (Keskar et al. 2019, section 4.1) in the form that
`transformers` gave it: the logit of a token that stood in the prompt or was generated is divided by the penalty where it is
above 0, and multiplied where it is below. OpenAI's two penalties are subtracted from the logits of generated tokens: once, and
once for each time. Min-p (Nguyen et al. 2024) keeps tokens at least so many times as likely as the likeliest, top-p the
likeliest that together reach p.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from hashing.base.errors import UsageError
from hashing.base.json_object import INT64_MAX

MOST_STOPS = 16
LONGEST_STOP = 1024  # characters


@dataclass(frozen=True, slots=True)
class Sampling:
    max_tokens: int = 64
    temperature: float = 0.0  # 0 takes the likeliest token
    top_p: float = 1.0  # 1 leaves all tokens
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0  # above 1 makes tokens that were seen less likely
    min_p: float = 0.0  # of the likeliest token's probability; 0 leaves all tokens
    top_k: int = 0  # how many of the likeliest; 0 leaves all tokens
    presence_penalty: float = 0.0  # subtracted from the logits of generated tokens
    frequency_penalty: float = 0.0  # the same, once for each time
    logit_bias: tuple[tuple[int, float], ...] = ()  # token ids, and what is added to their logits
    is_argmax: bool = field(init=False)  # whether the largest logit decides

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_argmax", self.temperature == 0 and not self.penalises and not self.logit_bias)
        for name, fits, expected in (
            ("max_tokens", self.max_tokens >= 0, "0 or more"),
            ("temperature", isfinite(self.temperature) and self.temperature >= 0, "a finite number of 0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "0 to 1"),
            ("top_k", self.top_k >= 0, "0 or more"),
            (
                "repetition_penalty",
                isfinite(self.repetition_penalty) and self.repetition_penalty > 0,
                "a finite number above 0",
            ),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "-2 to 2"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "-2 to 2"),
        ):
            if not fits:
                raise UsageError(f"{name} is {getattr(self, name)}, expected {expected}")
        if self.seed is not None and not 0 <= self.seed <= INT64_MAX:
            raise UsageError(f"the seed is {self.seed}, expected 0 to {INT64_MAX}", hint="any number in the range will do")
        if len(self.stop) > MOST_STOPS or any(len(stop) > LONGEST_STOP for stop in self.stop):
            raise UsageError(f"stop is at most {MOST_STOPS} strings of at most {LONGEST_STOP} characters")

    @property
    def penalises(self) -> bool:
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


class Sampler:
    """Draws tokens for one sequence, with a random generator and a record of seen tokens of its own."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._seen: set[int] = set()
        self._drawn: Counter[int] = Counter()

    def __call__(self, logits: Tensor, seen: Iterable[int] = ()) -> int:
        """A token for logits (vocabulary,); `seen` are the sequence's tokens that the sampler was not told of before."""
        self._seen.update(seen)
        token = self._chosen(self._adjusted(logits))
        self._drawn[token] += 1
        return token

    @cached_property
    def _random(self) -> torch.Generator:
        random = torch.Generator()
        if self._sampling.seed is None:
            random.seed()
        else:
            random.manual_seed(self._sampling.seed)
        return random

    def _chosen(self, logits: Tensor) -> int:
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        ordered, tokens = self._probabilities(logits).sort(descending=True)
        outside = ordered.cumsum(-1) - ordered >= self._sampling.top_p * ordered.sum()
        outside[0] = False  # a top-p so small that it rounds to nothing leaves the likeliest
        chosen = torch.multinomial(ordered.masked_fill(outside, 0), 1, generator=self._random)
        return int(tokens[chosen])

    def _adjusted(self, logits: Tensor) -> Tensor:
        """With bias and penalties, in float64 where there are any."""
        asked = self._sampling
        if not (asked.penalises or asked.logit_bias):
            return logits
        logits = logits.double()
        if asked.logit_bias:
            ids, biases = zip(*asked.logit_bias, strict=True)
            logits[list(ids)] += torch.tensor(biases, dtype=torch.float64, device=logits.device)
        if asked.repetition_penalty != 1 and self._seen:
            seen = list(self._seen)
            known = logits[seen]
            logits[seen] = torch.where(known > 0, known / asked.repetition_penalty, known * asked.repetition_penalty)
        if self._drawn and (asked.presence_penalty or asked.frequency_penalty):
            times = torch.tensor(list(self._drawn.values()), dtype=torch.float64, device=logits.device)
            logits[list(self._drawn)] -= asked.presence_penalty + asked.frequency_penalty * times
        return logits

    def _probabilities(self, logits: Tensor) -> Tensor:
        """(vocabulary,) After temperature, min-p and top-k; in float64, where a small temperature is no division by 0."""
        asked, logits = self._sampling, logits.cpu().double()
        probabilities = ((logits - logits.max()) / asked.temperature).softmax(-1)
        if asked.min_p > 0:
            probabilities = probabilities.masked_fill(probabilities < asked.min_p * probabilities.max(), 0)
        if 0 < asked.top_k < len(probabilities):
            likeliest = probabilities.topk(asked.top_k)
            probabilities = torch.zeros_like(probabilities).scatter_(0, likeliest.indices, likeliest.values)
        return probabilities
