"""Completion: one text being continued, from its prompt to the reason why it ended."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tokenizers import Tokenizer

from runtime.decoder import Decoded
from runtime.serve.sampler import Sampler, Sampling
from runtime.serve.text_cutter import TextCutter

FinishReason = Literal["stop", "length", "error"]  # error: the model gave no numbers


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Natural logarithms of probabilities, before bias, penalties and temperature."""

    own: float  # of the token that stands here
    likeliest: Sequence[tuple[int, float]]  # as many tokens as were asked for, the likeliest first


class Piece(NamedTuple):
    """What one step added to a completion."""

    text: str  # of a completion without stop strings nothing, until `Completion.joined` finds it
    token_ids: Sequence[int]
    likelihoods: Sequence[Likelihoods] = ()  # of those tokens, where they were asked for
    finish_reason: FinishReason | None = None


@dataclass(slots=True, eq=False)
class Completion:
    """`token_ids` are the prompt's, and then also those that were generated."""

    token_ids: list[int]
    sampling: Sampling
    cutter: TextCutter
    likeliest: int | None = None  # how many tokens' likelihoods are wanted beside each one's own; None: no likelihoods
    of_prompt: bool = False  # whether the prompt's are wanted, too
    prompt_tokens: int = field(init=False)
    decoded: Decoded = field(init=False, default_factory=Decoded)
    sampler: Sampler = field(init=False)
    prompt_likelihoods: list[Likelihoods] = field(init=False, default_factory=list)  # of all prompt tokens but the first

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.token_ids)
        self.sampler = Sampler(self.sampling)

    @classmethod
    def of(cls, prompt: Sequence[int], sampling: Sampling, tokenizer: Tokenizer) -> "Completion":
        return cls(list(prompt), sampling, TextCutter(tokenizer, sampling.stop))

    @property
    def pending(self) -> int:
        """How many of its tokens the model has not computed."""
        return len(self.token_ids) - self.decoded.length

    @property
    def has_work(self) -> bool:
        """Whether anything is to be computed."""
        return self.sampling.max_tokens > 0 or self.of_prompt

    @property
    def generated(self) -> int:
        return len(self.token_ids) - self.prompt_tokens

    def take(self, token: int, end_ids: Collection[int], likelihoods: Likelihoods | None) -> Piece:
        """Goes on with a token; it ends before an end-of-text token, before a stop string, or with its last token."""
        if token in end_ids:
            return Piece(self.cutter.end(), (), (), "stop")
        self.token_ids.append(token)
        reason: FinishReason | None = "length" if self.generated >= self.sampling.max_tokens else None
        text = ""
        if self.sampling.stop:
            text = self.cutter.add(token)
            if self.cutter.is_stopped:
                reason = "stop"
            elif reason:
                text += self.cutter.end()
        return Piece(text, (token,), (likelihoods,) if likelihoods else (), reason)

    def joined(self, pieces: Sequence[Piece]) -> Piece:
        """Pieces that follow one another, and the last that was joined, as one with its text.

        Tokens of a while are made text together, which takes half as long as each by itself between two steps.
        """
        ids = [token for piece in pieces for token in piece.token_ids]
        parts = (piece.text for piece in pieces) if self.sampling.stop else map(self.cutter.add, ids)
        likelihoods = [each for piece in pieces for each in piece.likelihoods]
        return Piece("".join(parts), ids, likelihoods, pieces[-1].finish_reason)
