"""Text, token by token, from a model with its tables wherever they are."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from tokenizers import Tokenizer

from runtime.decoder import Decoder, pages_for
from runtime.placement.placement import Placement
from runtime.serve.completion import Completion, Piece
from runtime.serve.engine import Engine, Limits
from runtime.serve.sampler import Sampling
from runtime.serve.shadow import Shadow


class NoTemplateError(Exception):
    """The model has no chat template."""


class Generator(ABC):
    """A model that a decoder can go on with, and its tokenizer."""

    def __init__(self, tokenizer: Tokenizer, end_ids: frozenset[int], vocab_size: int, placement: Placement | None) -> None:
        """A text ends before any of `end_ids`. `placement` is None where the memory is suppressed or there is none."""
        self.tokenizer, self.end_ids, self.vocab_size, self.placement = tokenizer, end_ids, vocab_size, placement

    @abstractmethod
    def decoder(self, cache_bytes: int) -> Decoder:
        """One whose sequences may take so many bytes together."""

    @abstractmethod
    def encode(self, prompt: str) -> list[int]:
        """Token ids; an empty prompt is the start of a document."""

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:  # noqa: ARG002
        """Token ids of messages (`role`, `content`) up to where the answer begins.

        Raises NoTemplateError, and UsageError for messages that the template refuses.
        """
        raise NoTemplateError

    def shadow(self, every: int) -> Shadow | None:  # noqa: ARG002
        """A check in one of so many steps; None where there is nothing that it could look at."""
        return None

    def engine(self, limits: Limits = Limits()) -> Engine:  # noqa: B008 - frozen
        decoder = self.decoder(limits.cache_bytes)
        decoder.most_pages = min(decoder.most_pages, pages_for(limits.cache_tokens))
        return Engine(decoder, self.tokenizer, self.end_ids, limits)

    def pieces(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        """What each step adds to the prompt."""
        if sampling.max_tokens == 0:
            return
        engine = self.engine(Limits(cache_bytes=sys.maxsize, cache_tokens=sys.maxsize))
        engine.add(Completion.of(prompt, sampling, self.tokenizer))
        while not engine.is_idle:
            yield from (completion.joined([piece]) for completion, piece in engine.step())

    def token_ids(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """New token ids, ending before an end-of-text token."""
        for piece in self.pieces(prompt, sampling):
            yield from piece.token_ids

    def text(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[tuple[str, int]]:
        """Pieces of text with the number of tokens in each, cut before the first stop string."""
        yield from ((piece.text, len(piece.token_ids)) for piece in self.pieces(prompt, sampling))
