"""Text from a trained run, token by token, with the tables wherever they are."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from runtime.device import default_device
from runtime.lookup import Lookup
from runtime.model.language_model import LanguageModel
from runtime.placement.placement import PlacementName, check_placement
from runtime.run import Run
from runtime.sequence import Sequence as DecodedSequence
from runtime.serve.completion import Completion, Piece
from runtime.serve.engine import Engine, Limits
from runtime.serve.sampler import Sampling
from runtime.serve.shadow import Shadow
from runtime.serve.threads import choose_threads
from runtime.trained_run import TrainedRun


@dataclass(frozen=True, slots=True)
class Generator:
    """A model with its tables in place."""

    model: LanguageModel
    tokenizer: Tokenizer
    lookup: Lookup | None  # None where the memory is suppressed or the model has none
    end_id: int
    trained: TrainedRun | None = None  # what it was loaded from

    @classmethod
    def load(cls, run: Run, placement: PlacementName, memory: bool = True, best: bool = False) -> "Generator":
        """With `memory` False it is suppressed, which is not a model that was trained without.

        With `best` the checkpoint is taken whose validation was best, instead of the newest.

        Raises EngramError for a run that is not trained, or whose parts do not belong together, and UsageError, before anything
        is read, for a placement that there is not.
        """
        check_placement(placement)
        trained = TrainedRun.load(run, default_device(), best)
        lookup = trained.lookup(placement) if memory else None
        generator = cls(trained.model, trained.tokenizer, lookup, trained.vocab.end_of_text_id, trained)
        choose_threads(lambda: generator.sequence().feed([generator.end_id]))
        return generator

    def sequence(self) -> DecodedSequence:
        """A new sequence, with nothing in it yet."""
        return DecodedSequence(self.model, self.lookup)

    def encode(self, prompt: str) -> list[int]:
        """Token ids; an empty prompt is the start of a document."""
        return list(self.tokenizer.encode(prompt, add_special_tokens=False).ids) or [self.end_id]

    def engine(self, limits: Limits = Limits()) -> Engine:  # noqa: B008 - frozen
        return Engine(self.model, self.lookup, self.tokenizer, self.end_id, limits)

    def shadow(self, every: int) -> Shadow | None:
        """A check in one of so many steps; None where no tables are read."""
        if self.lookup is None or self.trained is None:
            return None
        addressing = self.lookup.addressing
        return Shadow(addressing.vocab, addressing.spec, self.trained.tables, every)

    def pieces(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        """What each step adds to the prompt."""
        if sampling.max_tokens == 0:
            return
        engine = self.engine(Limits(cache_bytes=sys.maxsize))
        engine.add(Completion.of(prompt, sampling, self.tokenizer))
        while not engine.is_idle:
            yield from (piece for _, piece in engine.step())

    def token_ids(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """New token ids, ending before an end-of-text token."""
        for piece in self.pieces(prompt, sampling):
            yield from piece.token_ids

    def text(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[tuple[str, int]]:
        """Pieces of text with the number of tokens in each, cut before the first stop string."""
        yield from ((piece.text, len(piece.token_ids)) for piece in self.pieces(prompt, sampling))
