"""Subject: what is looked into. A run, or a table store or a published checkpoint with the tokenizer that addresses it.

Tables, tokens and reads are opened together and stay as they were then, whatever replaces the files. Nothing here loads torch.
What is missing is None, and `notes` say what would make it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError, UsageError
from hashing.ngrams.counts import NgramCounts
from hashing.ngrams.sharers import Known, Readers, readers_of
from hashing.rule import ENGRAM, IDENTITY
from hashing.spec import HashSpec
from hashing.vocab import CanonicalVocab
from runtime.inspect.reads import Reads
from runtime.inspect.training_side import TrainingSide
from runtime.run import Run
from table.checkpoints.family import read_checkpoint
from table.checkpoints.published import Checkpoint
from table.encodings.few_rows import decoded_few
from table.store.gather import Table
from table.store.manifest import LayerShards
from table.store.parted_table import LaidOutTable
from table.store.store import TableStore

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COUNTS_NAME = "ngrams.parquet"


@dataclass(frozen=True, slots=True)
class Words:
    """The tokenizer of a store and its canonical vocabulary."""

    tokenizer: "Tokenizer"
    vocab: CanonicalVocab


@dataclass(frozen=True, slots=True)
class Subject:
    """Tables with what else is known of them."""

    store: TableStore | Checkpoint
    tables: Mapping[int, LaidOutTable]
    words: Words | None  # None for a store without a tokenizer
    counts: NgramCounts | None  # of a corpus over the vocabulary
    reads: Reads | None  # None where no training kept them
    training: TrainingSide | None  # None where no text of a training is there
    notes: tuple[str, ...] = ()  # what cannot be shown, and what to run for it

    @classmethod
    def of_run(cls, run: Run, counts: Path | None = None) -> "Subject":
        """A run's newest tables; counts are its own `ngrams.parquet` unless another file is named.

        Raises EngramError for a run without tables, or with a vocabulary or counts that are not those of its tables.
        """
        with run.reading():
            words = Words(run.tokenizer(), run.vocab())
            run.require_memory()
            run.require(run.tables_path, "train")
            store = TableStore.open(run.tables_path)
            store.check_vocab(words.vocab.fingerprint)
            path = counts or run.folder / COUNTS_NAME
            known = _counts(path, store) if counts or path.exists() else None
            notes = () if known else (f"note: the corpus is not counted; first run: {run.command('stats')}",)
            reads, training = Reads.of(run, store), TrainingSide.of(run, words.vocab)
            return cls(store, _tables(store), words, known, reads, training, notes)

    @classmethod
    def of_store(cls, path: Path, tokenizer: Path | None = None, counts: Path | None = None) -> "Subject":
        """A store alone. The tokenizer is a `tokenizer.json`, or a folder with one and perhaps its `vocab.parquet`.

        Raises EngramError when the tokenizer or the counts are not of the vocabulary that addressed the store, UsageError for
        counts without a tokenizer, whose n-grams nothing could name.
        """
        store = TableStore.open(path)
        if counts and not tokenizer:
            raise UsageError("counts alone do not say what an n-gram reads", hint="name the store's tokenizer with --tokenizer")
        words = _words(store, tokenizer) if tokenizer else None
        known = _counts(counts, store) if counts else None
        missing = "n-grams are not named: --tokenizer and --counts are not given"
        if words:
            missing = "no corpus is counted: engram stats CORPUS --counts FILE makes a file for --counts"
        return cls(store, _tables(store), words, known, None, None, () if known else (f"note: {missing}",))

    @classmethod
    def of_checkpoint(cls, folder: Path, tables: Mapping[int, LaidOutTable]) -> "Subject":
        """A published checkpoint of a family that takes token ids as they are; its tables, mapped, by layer."""
        from hashing.text.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(str(folder))
        words = Words(tokenizer, CanonicalVocab.from_tokenizer(tokenizer, IDENTITY))
        return cls(read_checkpoint(folder), tables, words, None, None, None, ("note: no corpus is counted for a checkpoint",))

    @property
    def spec(self) -> HashSpec:
        return self.store.spec

    @property
    def addressed(self) -> Words:
        """The tokenizer and vocabulary. Raises UsageError for a store that was named without."""
        if self.words is None:
            raise UsageError(
                f"a text's rows in {self.store.path} cannot be found without the tokenizer that addresses it",
                hint="name its tokenizer.json with --tokenizer",
            )
        return self.words

    def keys(self, ids: Iterable[int]) -> list[str]:
        """What canonical ids stand for. Raw ids go beyond the tokenizer's tokens where a model's embedding does."""
        keys = self.addressed.vocab.keys
        return [keys[i] if i < len(keys) else f"<{i}>" for i in ids]

    def readers(self, rows: Mapping[int, Sequence[int]]) -> Readers | None:
        """The counted n-grams that read rows, by layer and row, the most frequent first; None without counts."""
        return readers_of(self.spec, self.counts, rows) if self.counts else None

    def named(self, known: Known) -> dict[str, Any]:
        """An n-gram with its count, as JSON has it."""
        return {"ngram": self.keys(known.ids), "count": known.count}

    def vectors(self, layer: int, rows: Sequence[int]) -> NDArray[np.float32]:
        """(rows, head_dim) The vectors of a few rows, read without compiled code."""
        table = self.tables[layer]
        records = np.concatenate([table.stretch(row, row + 1) for row in rows])
        return decoded_few(self.store.encoding, records, table.head_dim, table.scale)

    def shards(self, layer: int) -> LayerShards | None:
        """Which shards of a store's table are there; None where all rows are."""
        return self.store.manifest.layers[layer] if isinstance(self.store, TableStore) else None


def _tables(store: TableStore) -> dict[int, Table]:
    return {layer: store.table(layer) for layer in store.spec.layers}


def _counts(path: Path, store: TableStore) -> NgramCounts:
    counts = NgramCounts.open(path)
    counts.check_vocab(store.spec.vocab_fingerprint)
    return counts


def _words(store: TableStore, path: Path) -> Words:
    """Raises EngramError when the vocabulary that follows from the tokenizer is not the one that addressed the store."""
    from hashing.text.tokenizer import load_tokenizer

    if not path.exists():
        raise EngramError(f"no such file: {path}", hint="name a tokenizer.json, or a folder holding one")
    tokenizer = load_tokenizer(str(path))
    kept = path / "vocab.parquet"
    if kept.is_file():
        vocab = CanonicalVocab.load(kept)
        store.check_vocab(vocab.fingerprint)
        return Words(tokenizer, vocab)
    return Words(tokenizer, _vocab(store, tokenizer, path))


def _vocab(store: TableStore, tokenizer: "Tokenizer", path: Path) -> CanonicalVocab:
    """By the published rule, or by raw ids: a store does not say which, its fingerprint does."""
    own = store.vocab_fingerprint
    if own is None:
        store.check_vocab("")  # says that the store does not know its vocabulary
    raw = np.array_equal(store.mapping, np.arange(len(store.mapping)))
    likelier = (IDENTITY, ENGRAM) if raw else (ENGRAM, IDENTITY)
    for rule in likelier:
        vocab = CanonicalVocab.from_tokenizer(tokenizer, rule)
        if vocab.fingerprint == own:
            return vocab
    given = CanonicalVocab.from_tokenizer(tokenizer, likelier[0]).fingerprint
    raise EngramError(
        f"{store.path} was addressed with vocabulary {own}, but {path} gives {given}",
        hint=f"name the tokenizer of the model whose tables these are; engram table info {quote(str(store.path))} says more",
    )
