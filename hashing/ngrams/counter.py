"""Counting the n-grams of a stream of documents within a memory budget.

A buffer holds as many tokens as the budget allows. When they are all there is, their n-grams go straight to the file of counts;
otherwise each bufferful becomes one sorted run per order on disk, and the runs are merged a few partitions at a time. What an
n-gram's position reads does not depend on where a buffer ends, and neither do the documents it is counted in: a document longer
than `LONGEST_DOCUMENT` tokens counts as several, wherever that falls.
"""

import os
import resource
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError, UsageError
from hashing.ngrams import partition_kernel as kernel
from hashing.ngrams.counts import DiskRun, Packing, Run, Totals, write_counts
from hashing.ngrams.distinct_kernel import close_up, tally
from hashing.text.token_stream import Piece
from hashing.vocab import CanonicalVocab

LONGEST_DOCUMENT = 1 << 18  # tokens
TOKEN_BYTES = 60  # of a buffered token: 24 while it is scattered, 24 for what comes of it, 12 for tables and writing
WRITING_BYTES = 96 << 20  # set aside for merging, unpacking and writing a window of runs
LONGEST_REHEARSAL = 64  # tokens
TASKS = 16  # into which a bufferful's partitions are divided


def resident_bytes() -> int:
    """The memory this process has resident now; where /proc does not tell, the most it ever had."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Buffer:
    """Tokens waiting to be counted, and the memory to count them in."""

    def __init__(self, capacity: int, packing: Packing) -> None:
        self.packing = packing
        self.ids = np.zeros(capacity, np.uint32)
        self.first = packing.longest  # what lies before it was counted with an earlier bufferful
        self.fill = self.first
        self.starts: list[int] = []  # of documents
        wide = capacity if packing.longest > packing.in_first else 0
        self._scattered = (np.empty(capacity, np.uint64), np.empty(wide, np.uint64), np.empty(capacity, np.uint32))
        self._found = (*(np.empty(size, np.uint64) for size in (capacity, wide)), *np.empty((2, capacity), np.uint32))
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="count")

    def fits(self, tokens: int) -> bool:
        return self.fill + tokens + 1 <= len(self.ids)

    def append(self, token_ids: NDArray[np.integer], vocab: CanonicalVocab, begins: bool) -> None:
        if begins:
            self.ids[self.fill] = 0
            self.fill += 1
        self.starts.append(self.fill)
        largest = kernel.translate(token_ids, vocab.mapping, self.ids[self.fill : self.fill + len(token_ids)])
        if largest >= len(vocab.tokens):
            raise EngramError(f"token id {largest} is outside the vocabulary of {len(vocab.tokens)} tokens")
        self.fill += len(token_ids)

    def runs(self, orders: Sequence[int]) -> Iterator[tuple[int, Run]]:
        """The distinct n-grams of each order; a run's memory is used again for the next."""
        bounds = self._scatter()
        for order in orders:
            yield order, self._run(order, bounds)

    def clear(self) -> None:
        """Forgets what was counted, but for what the next n-grams reach back to."""
        self.ids[: self.first] = self.ids[self.fill - self.first : self.fill].copy()
        self.fill, self.starts = self.first, []

    def _scatter(self) -> NDArray[np.int64]:
        """(PARTITIONS + 1,) Where each partition of the scattered occurrences begins."""
        workers = os.cpu_count() or 1
        edges = np.linspace(self.first, self.fill, workers + 1).astype(int)
        sizes = np.zeros((workers, kernel.PARTITIONS), np.int64)
        bits, in_first, longest = self.packing.bits, self.packing.in_first, self.packing.longest
        place = {int(first): worker for worker, first in enumerate(edges[:-1])}
        self._spread(lambda first, last: kernel.histogram(self.ids, first, last, bits, sizes[place[first]]), edges)
        bounds = np.concatenate([[0], np.cumsum(sizes.sum(axis=0))])
        cursors = (bounds[:-1] + np.cumsum(sizes, axis=0) - sizes).astype(np.uint64)
        starts, masks = np.array(self.starts, np.int64), kernel.word_masks(longest, bits, in_first)
        self._spread(
            lambda first, last: kernel.scatter(
                self.ids, starts, first, last, longest, bits, in_first, masks, cursors[place[first]], *self._scattered
            ),
            edges,
        )
        return bounds

    def _run(self, order: int, bounds: NDArray[np.int64]) -> Run:
        masks = kernel.word_masks(order, self.packing.bits, self.packing.in_first)
        narrow = order <= self.packing.in_first
        words, rests, documents = self._scattered
        mixed, rest, *numbers = self._found
        sizes = np.zeros(kernel.PARTITIONS, np.int64)
        found = (sizes, mixed, rest[:0] if narrow else rest, *numbers)
        given = (masks, words, rests[:0] if narrow else rests, documents, found)
        edges = np.linspace(0, kernel.PARTITIONS, TASKS + 1).astype(int)
        self._spread(lambda first, last: tally(bounds, first, last, *given), edges)
        stretches = bounds[edges[:-1]], np.add.reduceat(sizes, edges[:-1])
        filled = (mixed, *numbers) if narrow else (mixed, rest, *numbers)
        list(self._threads.map(lambda field: close_up(field, *stretches), filled))
        starts = np.concatenate([[0], np.cumsum(sizes)])
        size = starts[-1]
        tails = np.zeros(size, np.uint64) if narrow else rest[:size]
        counts, frequencies = (field[:size] for field in numbers)
        return Run(starts, (mixed[:size], tails, counts, frequencies))

    def _spread(self, work: Any, edges: NDArray[np.int64]) -> None:
        """Runs work(first, last) between neighbouring edges, on all threads."""
        list(self._threads.map(work, edges[:-1].tolist(), edges[1:].tolist()))


class NgramCounter:
    """Counts documents as they come; `write` ends it."""

    def __init__(self, vocab: CanonicalVocab, orders: Sequence[int], memory_bytes: int, folder: Path) -> None:
        """`memory_bytes` is what the whole process may have resident; runs that do not fit go to a new folder in `folder`.

        Raises UsageError when the budget leaves too little.
        """
        self.vocab, self.orders = vocab, tuple(sorted(orders))
        self.tokens = self.documents = 0
        self._scratch = tempfile.TemporaryDirectory(dir=folder, prefix="ngram-runs-")
        packing = Packing(self.orders[-1], vocab.size)
        self._rehearse(packing)
        used = resident_bytes()
        capacity = (memory_bytes - used - WRITING_BYTES) // TOKEN_BYTES
        least = LONGEST_DOCUMENT + packing.longest + 1
        if capacity < least:
            self._scratch.cleanup()
            needed = used + WRITING_BYTES + least * TOKEN_BYTES
            raise UsageError(
                f"the memory budget is {memory_bytes:,} bytes, expected at least {needed:,}", hint="raise --memory"
            )
        self._buffer = Buffer(min(capacity, 2**31), packing)
        self._spilled: dict[int, list[DiskRun]] = {order: [] for order in self.orders}

    def _rehearse(self, packing: Packing) -> None:
        """Counts a handful of tokens: what the code itself takes is then resident before the budget is divided."""
        buffer, path = Buffer(LONGEST_REHEARSAL, packing), Path(self._scratch.name) / "rehearsal"
        buffer.append(np.zeros(1, np.int32), self.vocab, True)
        runs = {order: [DiskRun.write(path, run)] * 2 for order, run in buffer.runs(self.orders)}
        totals = Totals(self.orders, 2, 2, self.vocab.size, self.vocab.fingerprint)
        write_counts(path.with_suffix(".parquet"), totals, {self.orders[-1]: runs[self.orders[-1]]}.items())

    @property
    def spills(self) -> int:
        """How many times the budget was reached so far."""
        return len(self._spilled[self.orders[0]])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._scratch.cleanup()

    def add(self, token_ids: NDArray[np.integer], begins: bool = True) -> None:
        """A document, or with `begins` false the next piece of the one before. Ids below 0 are dead positions.

        Raises EngramError for a token id beyond the vocabulary.
        """
        for first in range(0, len(token_ids), LONGEST_DOCUMENT):
            piece = token_ids[first : first + LONGEST_DOCUMENT]
            if not self._buffer.fits(len(piece)):
                self._spill()
            self._buffer.append(piece, self.vocab, begins and first == 0)
        self.documents += begins
        self.tokens += int(np.count_nonzero(token_ids >= 0))

    def write(self, path: Path) -> Totals:
        """Writes the file of counts. Nothing can be added afterwards. Raises EngramError when there is nothing to count."""
        if not self.tokens:
            raise EngramError("there is nothing to count: the corpus has no tokens")
        totals = Totals(self.orders, self.tokens, self.documents, self.vocab.size, self.vocab.fingerprint)
        if self.spills:
            self._spill()
            del self._buffer  # its memory is now the merge's
            write_counts(path, totals, self._spilled.items())
        else:
            write_counts(path, totals, ((order, [run]) for order, run in self._buffer.runs(self.orders)))
        return totals

    def _spill(self) -> None:
        for order, run in self._buffer.runs(self.orders):
            runs = self._spilled[order]
            runs.append(DiskRun.write(Path(self._scratch.name) / f"{order}-{len(runs)}", run))
        self._buffer.clear()


def count_pieces(
    pieces: Iterable[Piece], vocab: CanonicalVocab, orders: Sequence[int], memory_bytes: int, path: Path
) -> Totals:
    """Counts documents as they are read and writes the file of counts; see NgramCounter for what can be wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NgramCounter(vocab, orders, memory_bytes, path.parent) as counter:
        for piece in pieces:
            counter.add(piece.token_ids, piece.begins)
        return counter.write(path)
