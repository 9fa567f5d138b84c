"""Text from a trained run, token by token, with the tables wherever they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor

from hashing.base.errors import UsageError
from hashing.hasher import Hasher
from hashing.text.tokenizer import end_of_text_id
from hashing.vocab import CanonicalVocab
from runtime.device import default_device
from runtime.model.language_model import Cache, LanguageModel
from runtime.placement.placement import Placement, PlacementName, place
from runtime.run import Run
from runtime.train.checkpoint import load_run


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


@dataclass(frozen=True, slots=True)
class Generator:
    """A model with its tables in place."""

    model: LanguageModel
    tokenizer: Tokenizer
    vocab: CanonicalVocab
    hasher: Hasher
    placement: Placement
    end_id: int

    @classmethod
    def load(cls, run: Run, placement: PlacementName) -> "Generator":
        """Raises EngramError for a run that is not trained, or whose parts do not belong together."""
        device, tokenizer = default_device(), run.tokenizer()
        model, store, vocab = load_run(run, device)
        return cls(model, tokenizer, vocab, Hasher(store.spec), place(store, placement, device), end_of_text_id(tokenizer))

    def encode(self, prompt: str) -> list[int]:
        """Token ids; an empty prompt is the start of a document."""
        return list(self.tokenizer.encode(prompt, add_special_tokens=False).ids) or [self.end_id]

    def token_ids(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
        """New token ids, ending before an end-of-text token."""
        decoding = Decoding(self)
        pick = Picker(sampling)
        following = prompt
        for _ in range(sampling.max_tokens):
            token = pick(decoding.feed(following))
            if token == self.end_id:
                return
            yield token
            following = [token]

    def text(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[tuple[str, int]]:
        """Pieces of text with the token ids consumed for each, cut before the first stop string."""
        stream, text, sent, tokens = DecodeStream(skip_special_tokens=False), "", 0, 0
        longest = max(map(len, sampling.stop), default=1)
        for token in self.token_ids(prompt, sampling):
            tokens += 1
            text += stream.step(self.tokenizer, token) or ""
            cuts = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
            ready = min(cuts) if cuts else max(sent, len(text) - longest + 1)  # a stop string may still be growing
            if ready > sent or cuts:
                yield text[sent:ready], tokens
                sent, tokens = ready, 0
            if cuts:
                return
        yield text[sent:], tokens


class Decoding:
    """One sequence being decoded: what its next tokens need of those before."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._cache = Cache()
        self._history = generator.hasher.history(1)

    @torch.inference_mode()
    def feed(self, token_ids: Sequence[int]) -> Tensor:
        """(vocabulary,) Logits after the given tokens."""
        return self.feed_all(token_ids)[-1]

    @torch.inference_mode()
    def feed_all(self, token_ids: Sequence[int]) -> Tensor:
        """(tokens, vocabulary) Logits after each of the given tokens."""
        g = self._generator
        ids = np.array([token_ids], np.int64)
        canonical = g.vocab.canonical(ids)
        rows = {layer: g.hasher.rows(layer, canonical, self._history) for layer in g.hasher.spec.layers}
        vectors = g.placement.fetch(rows)
        self._history = g.hasher.advance(canonical, self._history)
        device = next(g.model.parameters()).device
        return g.model(torch.from_numpy(ids).to(device), vectors, self._cache)[0]  # type: ignore[no-any-return]


class Picker:
    """Chooses a token from logits."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def __call__(self, logits: Tensor) -> int:
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        probabilities = (logits.float().cpu() / self._sampling.temperature).softmax(-1)
        ordered, tokens = probabilities.sort(descending=True)
        outside = ordered.cumsum(-1) - ordered >= self._sampling.top_p
        chosen = torch.multinomial(ordered.masked_fill(outside, 0), 1, generator=self._random)
        return int(tokens[chosen])
