"""A sequence being decoded by itself."""

from collections.abc import Sequence as Items

import torch
from torch import Tensor

from runtime.decoder import Decoded, Decoder
from runtime.lookup import Lookup
from runtime.model.language_model import LanguageModel


class Sequence:
    """Grows piece by piece. With no lookup the memory is suppressed, or the model has none."""

    def __init__(self, model: LanguageModel, lookup: Lookup | None) -> None:
        self._decoder, self._decoded = Decoder(model, lookup), Decoded()

    def feed(self, token_ids: Items[int]) -> Tensor:
        """(vocabulary,) Logits after the last of the given tokens."""
        return self._decoder.logits([(self._decoded, token_ids)])[0]

    @torch.inference_mode()
    def feed_all(self, token_ids: Items[int]) -> Tensor:
        """(tokens, vocabulary) Logits after each of the given tokens."""
        return self._decoder.head(self._decoder.hidden([(self._decoded, token_ids)]))
