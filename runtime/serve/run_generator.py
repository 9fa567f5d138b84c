"""RunGenerator: text from a trained run."""

from runtime.decoder import Decoder
from runtime.device import default_device
from runtime.lookup import Lookup
from runtime.model.pages import page_bytes
from runtime.placement.disk import CACHE_BYTES
from runtime.placement.placement import PlacementName, check_placement
from runtime.run import Run
from runtime.sequence import Sequence
from runtime.serve.generator import Generator
from runtime.serve.shadow import Shadow
from runtime.serve.threads import choose_threads
from runtime.trained_run import TrainedRun


class RunGenerator(Generator):
    def __init__(self, trained: TrainedRun, lookup: Lookup | None) -> None:
        """With no lookup the memory is suppressed, or there is none."""
        end_ids, size = frozenset({trained.vocab.end_of_text_id}), trained.config.model.vocab_size
        super().__init__(trained.tokenizer, end_ids, size, lookup.placement if lookup else None)
        self.trained, self.model, self.lookup = trained, trained.model, lookup

    @classmethod
    def load(
        cls, run: Run, placement: PlacementName, memory: bool = True, best: bool = False, cache_bytes: int = CACHE_BYTES
    ) -> "RunGenerator":
        """With `memory` False it is suppressed, which is not a model that was trained without.

        With `best` the checkpoint is taken whose validation was best, instead of the newest. On disk, rows may take
        `cache_bytes` of memory.

        Raises EngramError for a run that is not trained, or whose parts do not belong together, and UsageError, before anything
        is read, for a placement that there is not.
        """
        check_placement(placement)
        trained = TrainedRun.load(run, default_device(), best)
        generator = cls(trained, trained.lookup(placement, cache_bytes=cache_bytes) if memory else None)
        choose_threads(lambda: generator.sequence().feed([trained.vocab.end_of_text_id]))
        return generator

    def sequence(self) -> Sequence:
        """A new sequence, with nothing in it yet."""
        return Sequence(self.model, self.lookup)

    def decoder(self, cache_bytes: int) -> Decoder:
        return Decoder(self.model, self.lookup, max(1, cache_bytes // page_bytes(self.model.config)))

    def encode(self, prompt: str) -> list[int]:
        found = list(self.tokenizer.encode(prompt, add_special_tokens=False).ids)
        return found or [self.trained.vocab.end_of_text_id]

    def shadow(self, every: int) -> Shadow | None:
        if self.lookup is None:
            return None
        return Shadow(self.trained.vocab.canonical, self.lookup.addressing.spec, self.trained.tables, every)
