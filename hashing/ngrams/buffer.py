"""Buffer: tokens waiting to be counted, and the memory and threads to count them in.

The n-grams of one order are counted in passes over the text. Each pass scatters those of some partitions only, and counts them
window by window, a window being partitions that are written together: so what is held beside the text is a fraction of what its
n-grams would take at once, for the price of reading the text, the cheapest part of all, a few times.
"""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hashing.base.cores import CORES
from hashing.base.errors import EngramError
from hashing.ngrams import partition_kernel as kernel
from hashing.ngrams.distinct_kernel import tally
from hashing.ngrams.packing import Packing
from hashing.ngrams.runs import Run, window_edges
from hashing.vocab import CanonicalVocab

PASSES = 2  # over a text for each order, at least, unless it is short
SHORT = 1 << 20  # n-grams, which are scattered at once
ROOM_SHARE = 8  # of a full buffer's n-grams that are scattered at a time
NOWHERE = 16  # places for each thread to put what it does not want, a cache line away from the other threads'
TEXT_BYTES = 8  # of a buffered token: its id, and at worst the start of a document
AHEAD = max(CORES - 1, 1)  # windows that are counted, or wait, while the one before is taken

Result = TypeVar("Result")


def occurrence_bytes(packing: Packing) -> int:
    """The most memory that a scattered n-gram, all of them distinct, takes until it is written.

    That is its place among the scattered, its place among the found, and two rows of tables: its own, and that of another from
    the pass before, which is still being written.
    """
    wide = 8 * packing.wide(packing.longest)
    return 12 + wide + 16 + wide + 2 * (4 * packing.longest + 17)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a buffer's text, cut where documents begin."""

    edges: NDArray[np.int64]  # (threads + 1,) the text positions between which each thread reads
    sizes: NDArray[np.int64]  # (threads, PARTITIONS) how many n-grams of any one order end there


class Buffer:
    """The canonical ids of documents, one after the other with a 0 between, and the counting of their n-grams."""

    def __init__(self, capacity: int, longest_document: int, packing: Packing) -> None:
        """For `capacity` tokens and document ends; no document is longer than `longest_document` tokens."""
        self.packing = packing
        self.room = longest_document + capacity // ROOM_SHARE  # n-grams that are scattered at a time, at most, or SHORT
        self.first = packing.longest  # what lies before it was counted with an earlier bufferful
        self.ids = np.zeros(capacity + self.first, np.uint32)
        self.fill = self.first
        self.starts = array("q")  # of documents
        self._threads = ThreadPoolExecutor(CORES, thread_name_prefix="count")
        self._scattered = np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint32)

    def fits(self, tokens: int) -> bool:
        """Whether there is room for a document of so many tokens."""
        return self.fill + tokens + 1 <= len(self.ids)

    def append(self, token_ids: NDArray[np.integer], vocab: CanonicalVocab, begins: bool) -> int:
        """Adds a document, or with `begins` false the next piece of the one before, which counts as a document of its own.

        Returns how many of the ids are tokens, not dead positions. Raises EngramError for an id beyond the vocabulary.
        """
        if begins:
            self.ids[self.fill] = 0
            self.fill += 1
        self.starts.append(self.fill)
        largest, dead = kernel.translate(token_ids, vocab.mapping, self.ids[self.fill : self.fill + len(token_ids)])
        if largest >= len(vocab.tokens):
            raise EngramError(f"token id {largest} is outside the vocabulary of {len(vocab.tokens)} tokens")
        self.fill += len(token_ids)
        return len(token_ids) - int(dead)

    def clear(self) -> None:
        """Forgets what was counted, but for what the next n-grams reach back to."""
        self.ids[: self.first] = self.ids[self.fill - self.first : self.fill].copy()
        self.fill, self.starts = self.first, array("q")

    def stretches(self, windows: int) -> list[Stretch]:
        """The text in as few parts as keep every window within the room: one, but for texts of a few n-grams that end alike."""
        return list(self._within_room(self.first, self.fill, windows))

    def _within_room(self, first: int, last: int, windows: int) -> Iterator[Stretch]:
        edges = np.linspace(first, last, CORES + 1).astype(np.int64)
        sizes = np.zeros((CORES, kernel.PARTITIONS), np.int64)
        bits = self.packing.bits
        self._spread(lambda i: kernel.histogram(self.ids, edges[i], edges[i + 1], bits, sizes[i]))
        if sizes.sum(axis=0).reshape(windows, -1).sum(axis=1).max() <= self.room:
            yield Stretch(edges, sizes)
            return
        place = bisect_left(self.starts, (first + last) // 2)
        middle = self.starts[place] if place < len(self.starts) and self.starts[place] < last else self.starts[place - 1]
        yield from self._within_room(first, middle, windows)
        yield from self._within_room(middle, last, windows)

    def runs(self, stretch: Stretch, order: int, windows: int, take: Callable[[Run], Result]) -> Iterator[Result]:
        """What `take`, called in threads, makes of the distinct n-grams of each window, in order."""
        edges = window_edges(windows)
        passes = self._passes(stretch, edges)
        self._reserve(max(size for _, size in passes), order)
        for partitions, size in passes:
            begins = self._scatter(stretch, order, partitions[0], partitions[-1], size)

            def found(window: tuple[int, int], start: int = partitions[0], begins: NDArray[np.int64] = begins) -> Result:
                return take(self._tally(order, begins[window[0] - start : window[1] - start + 1]))

            yield from self._in_turn(found, pairwise(partitions))

    def _passes(self, stretch: Stretch, edges: list[int]) -> list[tuple[list[int], int]]:
        """Each pass's window edges, and how many n-grams it scatters."""
        before = np.concatenate([[0], np.cumsum(stretch.sizes.sum(axis=0))])[edges]
        largest = int(np.diff(before).max())
        most = max(largest, SHORT, min(self.room, int(before[-1]) // PASSES + largest // 2))
        passes, begin = [], 0
        while begin < len(edges) - 1:
            end = int(np.searchsorted(before, before[begin] + most, "right")) - 1
            passes.append((edges[begin : end + 1], int(before[end] - before[begin])))
            begin = end
        return passes

    def _reserve(self, size: int, order: int) -> None:
        """Makes room to scatter so many n-grams of an order."""
        size += NOWHERE * (CORES + 1)
        wide_size = size if self.packing.wide(order) else 0
        words, rests, _ = self._scattered
        if len(words) < size or len(rests) < wide_size:
            self._scattered = np.empty(size, np.uint64), np.empty(wide_size, np.uint64), np.empty(size, np.uint32)

    def _scatter(self, stretch: Stretch, order: int, first: int, last: int, size: int) -> NDArray[np.int64]:
        """(last - first + 1,) Where the scattered n-grams of each of the partitions first..last begin."""
        sizes = stretch.sizes[:, first:last]
        begins = np.concatenate([[0], np.cumsum(sizes.sum(axis=0))])
        cursors = np.empty(stretch.sizes.shape, np.uint64)
        cursors[:] = (size + NOWHERE * (1 + np.arange(CORES)))[:, None]
        cursors[:, first:last] = begins[:-1] + np.cumsum(sizes, axis=0) - sizes
        steps = np.zeros(kernel.PARTITIONS, np.uint64)
        steps[first:last] = 1
        starts, layout = np.frombuffer(self.starts, np.int64), self.packing.layout(order)
        words, rests, documents = self._scattered
        out = words, rests if self.packing.wide(order) else rests[:0], documents
        edges = stretch.edges
        self._spread(lambda i: kernel.scatter(self.ids, starts, edges[i], edges[i + 1], layout, cursors[i], steps, *out))
        return begins

    def _tally(self, order: int, begins: NDArray[np.int64]) -> Run:
        """The distinct n-grams of the partitions whose scattered ones lie between `begins`."""
        here = slice(begins[0], begins[-1])
        tails = here if self.packing.wide(order) else slice(0, 0)
        words, rests, documents = self._scattered
        size, tail_size = (part.stop - part.start for part in (here, tails))  # only what is written to becomes resident
        found = np.empty(size, np.uint64), np.empty(tail_size, np.uint64), *np.empty((2, size), np.uint32)
        bounds = np.zeros(len(begins), np.int64)
        tally(begins - here.start, words[here], rests[tails], documents[here], (bounds, *found))
        mixed, rest, counts, frequencies = (field[: bounds[-1]] for field in found)
        return Run(bounds, (mixed, rest, counts, frequencies))

    def _spread(self, work: Callable[[int], object]) -> None:
        """Runs work(0) … work(CORES - 1) at once."""
        for _ in self._threads.map(work, range(CORES)):
            pass

    def _in_turn(self, work: Callable[[tuple[int, int]], Result], items: Iterable[tuple[int, int]]) -> Iterator[Result]:
        """The results of work on each item, in order, a few of them ahead of the one that is asked for."""
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._threads.submit(work, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
