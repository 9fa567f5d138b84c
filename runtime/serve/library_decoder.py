"""LibraryDecoder: sequences of a `transformers` model, each in a cache of the library's own.

The library's caches of attention, of linear attention and of the memory cannot be cut into pages or joined to a batch, so a
sequence is computed by itself and shares nothing. Pages only count tokens here: so many may be in all caches together.
"""

import inspect
from collections.abc import Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from runtime.decoder import Decoded, Decoder, Piece
from runtime.huggingface import rows_of
from runtime.page_pool import PagePool


class LibraryDecoder(Decoder):
    shares_pages = False

    def __init__(self, model: Any, most_pages: int, turn: Lock) -> None:
        """Whoever has the `turn` works with the model."""
        self.model, self.lookup, self.most_pages, self.watch = model, None, most_pages, None
        self.pool, self._turn = PagePool(), turn
        self._caches: WeakKeyDictionary[Decoded, Any] = WeakKeyDictionary()
        self._read = rows_of(model)
        self._body, self._head = model.get_decoder(), model.get_output_embeddings()
        named = inspect.signature(type(self._body).forward).parameters
        self._cache_name = "cache" if "cache" in named else "past_key_values"  # its name before transformers 5.24

    @torch.inference_mode()
    def hidden(self, pieces: Sequence[Piece]) -> Tensor:
        self.reserve(pieces)
        found = []
        for sequence, ids in pieces:
            given = {self._cache_name: self._caches[sequence]} if sequence in self._caches else {}
            with self._turn:
                output = self._body(input_ids=torch.tensor([list(ids)], device=self._body.device), use_cache=True, **given)
                read = [rows.last for rows in self._read if rows.last]
            self._caches[sequence] = output[self._cache_name]
            for last in read if self.watch else ():
                assert self.watch is not None
                self.watch([(sequence, ids)], *last)
            sequence.token_ids += ids
            found.append(output.last_hidden_state[0])
        return torch.cat(found)

    @torch.inference_mode()
    def head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._head(hidden)
        return logits

    def release(self, sequence: Decoded) -> None:
        super().release(sequence)
        self._caches.pop(sequence, None)

    def _grow(self, pages: int) -> None:
        self.pool.grow(pages)
