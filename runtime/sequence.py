"""A sequence being decoded: what its next tokens need of those before."""

from collections.abc import Sequence as Items

import numpy as np
import torch
from torch import Tensor

from runtime.lookup import History, Lookup
from runtime.model.language_model import LanguageModel


class Sequence:
    """Keys and values, the memory's convolution and the n-grams' history of one sequence, which grows piece by piece.

    With no lookup the memory is suppressed, or the model has none.
    """

    def __init__(self, model: LanguageModel, lookup: Lookup | None) -> None:
        self._model, self._lookup = model, lookup
        self._cache = model.new_cache()
        self._history: History | None = None

    @torch.inference_mode()
    def feed(self, token_ids: Items[int]) -> Tensor:
        """(vocabulary,) Logits after the last of the given tokens."""
        return self._model.head(self._hidden(token_ids)[-1])  # type: ignore[no-any-return]

    @torch.inference_mode()
    def feed_all(self, token_ids: Items[int]) -> Tensor:
        """(tokens, vocabulary) Logits after each of the given tokens."""
        return self._model.head(self._hidden(token_ids))  # type: ignore[no-any-return]

    def _hidden(self, token_ids: Items[int]) -> Tensor:
        """Hidden states (tokens, D) after each of the given tokens."""
        ids = np.array([token_ids], np.int64)
        vectors = None
        if self._lookup is not None:
            vectors, self._history = self._lookup.following(ids, self._history)
        return self._model(torch.from_numpy(ids).to(self._model.device), vectors, self._cache)[0]  # type: ignore[no-any-return]
