"""Frequency: how often training had the n-grams that a probe meets, from a run's counts.

`engram stats` counts the whole of a corpus, and the validation side is part of it: what validation has is taken off, or no
n-gram of it would ever be new. Where the counts are not of the run's own corpus, by their number of tokens, they are taken as
they are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashing.ngrams.counts import NgramCounts, OrderCounts
from hashing.vocab import CanonicalVocab
from runtime.inspect.probes.probed_text import BEFORE, ending_ngrams
from runtime.run import Run
from runtime.tokens import Tokens

UNKNOWN = -1  # in place of a count: an n-gram that reaches back beyond the text


@dataclass(frozen=True, slots=True)
class Frequency:
    """How often n-grams of canonical ids occur in the text that a run was trained on."""

    counts: NgramCounts
    vocab: CanonicalVocab
    validation: NDArray[np.int32] | None  # token ids that are counted and were not trained on

    @classmethod
    def of(cls, run: Run, vocab: CanonicalVocab) -> "Frequency | None":
        """None for a run that has no counts. Raises EngramError where they are damaged, or of another vocabulary."""
        path = run.folder / "ngrams.parquet"
        if not path.exists():
            return None
        counts = NgramCounts.open(path)
        counts.check_vocab(vocab.fingerprint)
        tokens = Tokens.open(run.train_folder / "tokens")
        is_whole = counts.totals.tokens == sum(tokens.counts.values())
        return cls(counts, vocab, tokens.ids("validation") if is_whole else None)

    def of_ngrams(self, ngrams: NDArray[np.int64]) -> NDArray[np.int64]:
        """(P,) How often each of the n-grams (P, n) occurs; UNKNOWN for those that reach back beyond their text.

        Raises EngramError when n-grams of n were not counted.
        """
        whole = (ngrams != BEFORE).all(1)
        found = self.counts.order(ngrams.shape[1]).of(ngrams[whole])
        if self.validation is not None:
            found = found - self._in_validation(ngrams[whole])
        counts = np.full(len(ngrams), UNKNOWN, np.int64)
        counts[whole] = np.maximum(found, 0)
        return counts

    def _in_validation(self, ngrams: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self.validation is not None
        end = self.vocab.canonical_of(self.vocab.end_of_text_id)
        stream = ending_ngrams(self.vocab.canonical(self.validation)[None], ngrams.shape[1], end)[0]
        distinct, counts = np.unique(stream[(stream != BEFORE).all(1)], axis=0, return_counts=True)
        return OrderCounts(distinct.astype(np.int32), counts, counts).of(ngrams)
