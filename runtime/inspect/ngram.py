"""What a phrase reads: the n-grams that end it, their rows in every layer, and how often the training side has them.

A phrase is addressed by the reference rule and its rows are read from the mapping: for one position that is sooner done than
compiled code is loaded. Counting is a pass or two over the mapped stream of the training side.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hashing import reference
from hashing.base.errors import UsageError
from hashing.vocab import CanonicalVocab
from runtime.run import Run
from runtime.tokens import Tokens
from table.store.store import TableStore

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Longer:
    """A longer token that usually stands where the phrase's last one does."""

    token: str  # its text, which begins with that of the last token
    count: int  # times in the training side, after the tokens before


@dataclass(frozen=True, slots=True)
class Inside:
    """The phrase as it is tokenised after a space, where that is more frequent than the phrase as it was given."""

    tokens: list[str]  # their texts
    count: int  # times in the training side, of the last tokens: as many as the longest n-gram has


@dataclass(frozen=True, slots=True)
class NgramView:
    """The n-grams that end at a phrase's last token, one per order; look-back before the phrase reads the pad."""

    tokens: list[str]
    texts: list[str]
    keys: list[str]
    token_ids: list[int]
    canonical_ids: list[int]
    ngrams: dict[int, tuple[list[str], int | None]]  # order → canonical keys, times in the training side (None: none is kept)
    layers: dict[int, dict[int, list[tuple[int, float]]]]  # layer → order → (row, its norm) per head
    written_otherwise: Longer | None
    after_a_space: Inside | None

    def to_json(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "token_ids": self.token_ids,
            "canonical_ids": self.canonical_ids,
            "written_otherwise": asdict(self.written_otherwise) if self.written_otherwise else None,
            "after_a_space": asdict(self.after_a_space) if self.after_a_space else None,
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


@dataclass(frozen=True, slots=True)
class TrainingSide:
    """The text that a run was trained on, as tokens to count in."""

    vocab: CanonicalVocab
    token_ids: NDArray[np.int32]  # (tokens,) mapped
    canonical_ids: NDArray[np.int32]  # (tokens,)

    @classmethod
    def of(cls, run: Run, vocab: CanonicalVocab) -> "TrainingSide | None":
        """None for a run that keeps no text: its tables were imported."""
        if not run.train_folder.exists():
            return None
        token_ids = Tokens.open(run.train_folder / "tokens").ids("train")
        return cls(vocab, token_ids, vocab.mapping[token_ids])

    def following(self, ngram: list[int]) -> NDArray[np.int64]:
        """The places right after every occurrence of an n-gram of canonical ids; the last may be the stream's end."""
        stream = self.canonical_ids
        places = np.flatnonzero(stream[: max(0, len(stream) - len(ngram) + 1)] == ngram[0])
        for distance, canonical_id in enumerate(ngram[1:], 1):
            places = places[stream[places + distance] == canonical_id]
        return places + len(ngram)

    def longer(self, before: list[int], last: int, own: int) -> Longer | None:
        """The longer token that stands after `before` more often than the `own` times of the token `last`, if one does."""
        places = self.following(before)
        counts = np.bincount(self.token_ids[places[places < len(self.token_ids)]])
        text = self.vocab.texts[last]
        tokens = [i for i in np.flatnonzero(counts > own).tolist() if self.vocab.texts[i].startswith(text) and i != last]
        found = max(tokens, key=lambda i: int(counts[i]), default=None)
        return None if found is None else Longer(self.vocab.texts[found], int(counts[found]))

    def inside(self, tokenizer: "Tokenizer", text: str, canonical: list[int], longest: int) -> Inside | None:
        """How the text is tokenised after a space, where that gives other ids, and more frequent ones."""
        ids = tokenizer.encode(" " + text, add_special_tokens=False).ids
        found = [self.vocab.canonical_of(i) for i in ids]
        if found[-len(canonical) :] == canonical:
            return None
        own, count = (len(self.following(ngram[-longest:])) for ngram in (canonical, found))
        return Inside([self.vocab.texts[i] for i in ids], count) if count > own else None


def view_ngram(run: Run, text: str) -> NgramView:
    """Raises EngramError for a run without tables, UsageError for a text without tokens."""
    with run.reading():
        return _view(run, text)


def _view(run: Run, text: str) -> NgramView:
    tokenizer, vocab = run.tokenizer(), run.vocab()
    run.require_memory()
    run.require(run.tables_path, "train")
    store = TableStore.open(run.tables_path)
    store.check_vocab(vocab.fingerprint)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if not encoding.ids:
        raise UsageError("the text is empty; an n-gram needs at least one token", hint="name a phrase")
    spec = store.spec
    canonical = [vocab.canonical_of(i) for i in encoding.ids]
    slots = reference.slots(spec, canonical, len(canonical) - 1)
    ngrams = {order: slots[order - 1 :: -1] for order in spec.orders}
    side = TrainingSide.of(run, vocab)
    counts = {order: len(side.following(ids)) if side else None for order, ids in ngrams.items()}
    longest = min(spec.max_order, len(canonical))
    before, own = canonical[-longest:-1], counts.get(longest)
    return NgramView(
        tokens=encoding.tokens,
        texts=[vocab.texts[i] for i in encoding.ids],
        keys=[vocab.keys[i] for i in canonical],
        token_ids=encoding.ids,
        canonical_ids=canonical,
        ngrams={order: ([vocab.keys[i] for i in ids], counts[order]) for order, ids in ngrams.items()},
        layers={layer: _reads(store, layer, canonical) for layer in spec.layers},
        written_otherwise=side.longer(before, encoding.ids[-1], own) if side and before and own is not None else None,
        after_a_space=side.inside(tokenizer, text, canonical, spec.max_order) if side else None,
    )


def _reads(store: TableStore, layer: int, canonical: list[int]) -> dict[int, list[tuple[int, float]]]:
    """By order, the rows that the last id reads, one per head, each with its vector's norm."""
    spec = store.spec
    rows = reference.rows(spec, layer, canonical[-spec.max_order :])[-1]
    plain = store.encoding.name == "float32"  # numbers that lie there as they are, and need no kernel
    vectors = store.layer(layer)[rows] if plain else store.table(layer).gather(np.array(rows))
    reads = list(zip(rows, np.linalg.norm(vectors, axis=1).tolist(), strict=True))
    return {order: reads[i * spec.heads : (i + 1) * spec.heads] for i, order in enumerate(spec.orders)}
