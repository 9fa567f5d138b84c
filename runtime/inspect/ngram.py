"""Looking inside: what a phrase reads."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import UsageError
from runtime.lookup import Addressing
from runtime.run import Run
from runtime.tokens import Tokens
from table.store.store import TableStore


@dataclass(frozen=True, slots=True)
class NgramView:
    """The n-grams that end at a phrase's last token, one per order; look-back before the phrase reads the pad."""

    tokens: list[str]
    texts: list[str]
    keys: list[str]
    token_ids: list[int]
    canonical_ids: list[int]
    ngrams: dict[
        int, tuple[list[str], int | None]
    ]  # order → canonical keys, times in the training corpus (None: no corpus kept)
    layers: dict[int, dict[int, list[tuple[int, float]]]]  # layer → order → (row, its norm) per head

    def to_json(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "token_ids": self.token_ids,
            "canonical_ids": self.canonical_ids,
            "layers": {
                layer: {
                    "orders": {
                        order: {
                            "ngram": self.ngrams[order][0],
                            "corpus_count": self.ngrams[order][1],
                            "rows": [row for row, _ in reads],
                            "row_norms": [norm for _, norm in reads],
                        }
                        for order, reads in orders.items()
                    }
                }
                for layer, orders in self.layers.items()
            },
        }


def view_ngram(run: Run, text: str) -> NgramView:
    """Raises EngramError for a run without tables, UsageError for a text without tokens."""
    tokenizer, vocab = run.tokenizer(), run.vocab()
    run.require_memory()
    run.require(run.tables_path, "train")
    store = TableStore.open(run.tables_path)
    store.check_vocab(vocab.fingerprint)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if not encoding.ids:
        raise UsageError("the text is empty; an n-gram needs at least one token", hint="name a phrase")
    spec = store.spec
    found = Addressing(vocab, spec).addresses(np.array([encoding.ids], np.int64))
    canonical = found.canonical_ids[0].tolist()
    padded = [*[spec.pad_id] * (spec.max_order - 1), *canonical]
    stream = vocab.mapping[Tokens.open(run.train_folder / "tokens").ids("train")] if run.train_folder.exists() else None
    ngrams = {}
    for order in spec.orders:
        ids = padded[-order:]
        ngrams[order] = ([vocab.keys[i] for i in ids], None if stream is None else occurrences(stream, ids))
    layers = {}
    for layer in spec.layers:
        rows = found.rows[layer][0, -1]
        norms = np.linalg.norm(store.table(layer).gather(rows), axis=1)
        reads = list(zip(rows.tolist(), norms.tolist(), strict=True))
        layers[layer] = {n: reads[i * spec.heads : (i + 1) * spec.heads] for i, n in enumerate(spec.orders)}
    return NgramView(
        tokens=encoding.tokens,
        texts=[vocab.texts[i] for i in encoding.ids],
        keys=[vocab.keys[i] for i in canonical],
        token_ids=encoding.ids,
        canonical_ids=canonical,
        ngrams=ngrams,
        layers=layers,
    )


def occurrences(stream: NDArray[np.int32], ngram: list[int]) -> int:
    """How often an n-gram stands in a stream of canonical ids."""
    last = len(stream) - len(ngram) + 1
    hits = np.flatnonzero(stream[: max(0, last)] == ngram[0])
    for distance, canonical_id in enumerate(ngram[1:], 1):
        hits = hits[stream[hits + distance] == canonical_id]
    return len(hits)
