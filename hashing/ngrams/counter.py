"""Counting the n-grams of a stream of documents within a memory budget.

A buffer holds as many tokens as the budget allows. When they are all there is, their n-grams go straight to the file of counts;
otherwise each bufferful becomes one sorted run per order on disk, and the runs are merged a few partitions at a time. What an
n-gram's position reads does not depend on where a buffer ends, and neither do the documents it is counted in: a document longer
than `LONGEST_DOCUMENT` tokens counts as several, wherever that falls.
"""

import resource
import sys
from collections.abc import Iterable, Sequence
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hashing.base.atomic import atomic_path
from hashing.base.errors import EngramError, UsageError
from hashing.ngrams.buffer import ROOM_SHARE, TEXT_BYTES, Buffer, occurrence_bytes
from hashing.ngrams.counts import Totals
from hashing.ngrams.counts_writer import WINDOW_TOKENS, merged_tables, schema_of, table_of, write_counts
from hashing.ngrams.packing import Packing
from hashing.ngrams.runs import DiskRun, window_count
from hashing.ngrams.scratch import Scratch
from hashing.ngrams.source import Source
from hashing.rule import IDENTITY
from hashing.text.token_stream import Piece
from hashing.vocab import CanonicalVocab

LONGEST_DOCUMENT = 1 << 18  # tokens
WRITING_BYTES = 96 << 20  # set aside for scattering a short text, and for merging and writing a window of runs


class NothingToCountError(EngramError):
    """There are no tokens."""


def resident_bytes() -> int:
    """The memory this process has resident now; where /proc does not tell, the most it ever had."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def capacity_within(memory_bytes: int, packing: Packing) -> int:
    """How many tokens a counter may hold for the whole process to stay within `memory_bytes`.

    Raises UsageError when that is fewer than a document may have.
    """
    rehearse()
    work_bytes = occurrence_bytes(packing)
    least = LONGEST_DOCUMENT + 1
    given = resident_bytes() + WRITING_BYTES + LONGEST_DOCUMENT * work_bytes
    token_bytes = TEXT_BYTES + work_bytes // ROOM_SHARE + 1
    if (capacity := (memory_bytes - given) // token_bytes) < least:
        raise UsageError(
            f"the memory budget is {memory_bytes:,} bytes, expected at least {given + least * token_bytes:,}",
            hint="raise --memory",
        )
    return min(capacity, 2**31)


@cache
def rehearse() -> None:
    """Counts a handful of tokens: what the code itself takes is then resident before a budget is divided."""
    names = ("",)
    vocab = CanonicalVocab(names, names, np.zeros(1, np.int32), names, IDENTITY.name)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "n.parquet"
        for capacity in (8, 2):  # in memory, then from runs
            with NgramCounter(vocab, (2,), capacity, path.parent, longest_document=1) as counter:
                counter.add(np.zeros(3, np.int32))
                counter.write(path)


class NgramCounter:
    """Counts documents as they come; `write` ends it. To be used as a context, which removes the runs on disk."""

    def __init__(
        self,
        vocab: CanonicalVocab,
        orders: Sequence[int],
        capacity: int,
        folder: Path,
        longest_document: int = LONGEST_DOCUMENT,
        window_tokens: int = WINDOW_TOKENS,
    ) -> None:
        """Holds `capacity` tokens and document ends; runs of what is more go to a new folder in `folder`."""
        self.vocab, self.orders = vocab, tuple(sorted(orders))
        self.tokens = self.documents = 0
        self._longest_document, self._window_tokens = longest_document, window_tokens
        self._packing = Packing(self.orders[-1], vocab.size)
        self._buffer = Buffer(capacity, longest_document, self._packing)
        self._scratch = Scratch(folder)
        self._spilled: dict[int, list[DiskRun]] = {order: [] for order in self.orders}

    @property
    def spills(self) -> int:
        """How many times the tokens held so far were counted into runs on disk."""
        return len(self._spilled[self.orders[0]])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._scratch.__exit__(kind, error, trace)

    def add(self, token_ids: NDArray[np.integer], begins: bool = True) -> None:
        """A document, or with `begins` false the next piece of the one before. Ids below 0 are dead positions.

        Raises EngramError for a token id beyond the vocabulary.
        """
        for first in range(0, len(token_ids), self._longest_document):
            piece = token_ids[first : first + self._longest_document]
            if not self._buffer.fits(len(piece)):
                self._spill()
            self.tokens += self._buffer.append(piece, self.vocab, begins and first == 0)
        self.documents += begins

    def write(self, path: Path, source: Source | None = None) -> Totals:
        """Writes the counts, and what they are of, to a new file `path`; nothing can be added afterwards.

        Raises NothingToCountError when there is nothing.
        """
        if not self.tokens:
            raise NothingToCountError(
                "there is nothing to count: the corpus has no tokens", hint="name a file or folder that has text"
            )
        totals = Totals(self.orders, self.tokens, self.documents, self.vocab.size, self.vocab.fingerprint)
        windows = window_count(self.tokens, self._window_tokens)
        stretches = self._buffer.stretches(windows)
        if self.spills or len(stretches) > 1:
            self._spill()
            del self._buffer  # its memory is now the merge's
            tables = (merged_tables(totals, order, runs, windows) for order, runs in self._spilled.items())
        else:
            schema = schema_of(totals)
            tables = (
                self._buffer.runs(stretches[0], order, windows, partial(table_of, schema, order, self._packing))
                for order in self.orders
            )
        write_counts(path, totals, chain.from_iterable(tables), source)
        return totals

    def _spill(self) -> None:
        windows = window_count(self._buffer.fill, self._window_tokens)
        for stretch in self._buffer.stretches(windows):
            for order, runs in self._spilled.items():
                found = self._buffer.runs(stretch, order, windows, lambda run: run)
                runs.append(DiskRun.write(self._scratch.path(f"{order}-{len(runs)}"), found))
        self._buffer.clear()


def count_pieces(
    pieces: Iterable[Piece],
    vocab: CanonicalVocab,
    orders: Sequence[int],
    memory_bytes: int,
    path: Path,
    source: Source | None = None,
) -> Totals:
    """Counts documents as they are read, within `memory_bytes` for the whole process, and writes the file of counts.

    What it takes to read the first document, a tokenizer for one, is resident before the budget is divided. The file is locked
    from the beginning, and not flushed to the drive, since a corpus can be counted again. See `capacity_within` and
    NgramCounter for what can be wrong.
    """
    with atomic_path(path, flushed=False) as partial:
        documents = iter(pieces)
        first = list(islice(documents, 1))
        capacity = capacity_within(memory_bytes, Packing(max(orders), vocab.size))
        with NgramCounter(vocab, orders, capacity, path.parent) as counter:
            for piece in chain(first, documents):
                counter.add(piece.token_ids, piece.begins)
            return counter.write(partial, source)
