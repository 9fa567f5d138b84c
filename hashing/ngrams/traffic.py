"""What a stream of row reads asks of a cache: LRU miss ratios, the static-hot curve, distinct rows per batch.

The LRU curve is exact, from reuse distances, for streams of up to `EXACT_READS`. Longer ones are sampled by row (SHARDS,
Waldspurger et al. 2015): a row is followed if its hash says so, all its reads with it, and distances are scaled up. Several
disjoint samples give the estimate, and how they differ gives its standard error.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.hasher import Hasher
from hashing.ngrams.reuse_kernel import reuse_distances
from hashing.spec import HashSpec
from hashing.text.token_stream import Piece
from hashing.vocab import CanonicalVocab

EXACT_READS = 1 << 22
SAMPLES = 8
SPREAD = np.uint64(0x9E3779B97F4A7C15)
BATCHES = (256, 4096, 65_536)  # tokens


@dataclass(frozen=True, slots=True)
class MissCurve:
    """Miss ratio of an LRU cache against the rows it holds; first reads of a row are misses."""

    cache_rows: NDArray[np.int64]  # ascending
    miss_ratio: NDArray[np.float64]
    error: NDArray[np.float64]  # standard error; 0 where exact
    exact: bool

    def at(self, cache_rows: int) -> tuple[float, float]:
        """Miss ratio and its standard error with that many rows, the nearest smaller size of the curve's."""
        place = int(np.searchsorted(self.cache_rows, cache_rows, "right")) - 1
        return (float(self.miss_ratio[place]), float(self.error[place])) if place >= 0 else (1.0, 0.0)


def curve_sizes(distinct: int) -> NDArray[np.int64]:
    """Cache sizes in rows, sixteen to a doubling, the last holding everything."""
    steps = 2.0 ** np.arange(0, np.log2(max(distinct, 1)) + 1 / 16, 1 / 16)
    return np.unique(np.minimum(np.concatenate([steps, [distinct]]).astype(np.int64), distinct))


def miss_curve(reads: NDArray[np.integer], exact_reads: int = EXACT_READS, asked: int = 1) -> MissCurve:
    """The miss curve of rows (L,) in the order they are read; the cache size `asked` is among the curve's."""
    rows, dense = np.unique(reads, return_inverse=True)
    sizes = np.union1d(curve_sizes(len(rows)), [max(1, min(asked, len(rows)))])
    if len(reads) <= exact_reads:
        return MissCurve(sizes, _miss_ratios(dense, len(rows), sizes, 1.0), np.zeros(len(sizes)), exact=True)
    rate = exact_reads / len(reads) / SAMPLES
    chance = ((np.arange(len(rows), dtype=np.uint64) + np.uint64(1)) * SPREAD >> np.uint64(11)) / 2.0**53
    estimates = []
    for sample in range(SAMPLES):
        followed = (chance >= sample * rate) & (chance < (sample + 1) * rate)
        number = np.cumsum(followed) - 1
        chosen = number[dense[followed[dense]]]
        estimates.append(_miss_ratios(chosen, int(followed.sum()), sizes, rate, len(reads) * rate))
    stacked = np.stack(estimates)
    return MissCurve(sizes, stacked.mean(axis=0), stacked.std(axis=0, ddof=1) / sqrt(SAMPLES), exact=False)


def _miss_ratios(
    dense: NDArray[np.integer], distinct: int, sizes: NDArray[np.int64], rate: float, expected_reads: float | None = None
) -> NDArray[np.float64]:
    """Reads whose distance, scaled by 1/rate, reaches the cache's size, over all reads.

    A sample that caught more or fewer reads than expected is taken to differ in the most frequent rows, which always hit.
    """
    histogram, first_reads = reuse_distances(dense, distinct)
    hits_below = np.concatenate([[0], np.cumsum(histogram)])
    hits = hits_below[np.minimum(np.ceil(sizes * rate).astype(np.int64), distinct)]
    reads = len(dense) if expected_reads is None else expected_reads
    misses = np.asarray(first_reads + histogram.sum() - hits, np.float64)
    return np.minimum(misses / reads, 1.0)


def static_hot(reads: NDArray[np.integer], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(len(sizes),) The share of reads that the most-read rows, so many of them, answer."""
    counts = np.sort(np.unique(reads, return_counts=True)[1])[::-1]
    answered = np.concatenate([[0], np.cumsum(counts)])
    shares: NDArray[np.float64] = answered[np.minimum(sizes, len(counts))] / len(reads)
    return shares


def distinct_per_batch(rows: NDArray[np.integer], batch_tokens: int) -> float:
    """Mean number of distinct rows that a batch of tokens reads, of rows (T, columns)."""
    whole = max(len(rows) // batch_tokens, 1)
    batches = [rows[i * batch_tokens : (i + 1) * batch_tokens] for i in range(whole)]
    return float(np.mean([len(np.unique(batch)) for batch in batches]))


@dataclass(frozen=True, slots=True)
class RowStream:
    """The rows that a text reads from one layer, by one order's n-grams or by all."""

    layer: int
    orders: str
    rows: NDArray[np.signedinteger]  # (T, columns)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a stream asks of a cache."""

    layer: int
    orders: str
    reads: int
    distinct_rows: int
    exact: bool
    lru_hit_percent: float
    lru_error_percent: float  # standard error
    static_hit_percent: float  # of a cache that keeps the most-read rows
    distinct_rows_per_batch: dict[str, float | None]  # by tokens in the batch; None where the stream is shorter
    curve: MissCurve


def row_streams(spec: HashSpec, vocab: CanonicalVocab, pieces: Iterable[Piece], tokens: int) -> Iterator[RowStream]:
    """The rows that the first tokens of a corpus read: for each layer those of every order, then all of them together.

    Raises EngramError when there are no tokens.
    """
    ids, starts, read = [], [], 0
    for piece in pieces:
        starts += [read] if piece.begins else []
        ids.append(vocab.canonical(piece.token_ids[: tokens - read]))
        read += len(ids[-1])
        if read >= tokens:
            break
    if not read:
        raise EngramError("the corpus has no tokens to follow", hint="name a file or folder that has text")
    offsets, stream = np.array([*starts, read]), np.concatenate(ids)
    hasher = Hasher(spec)
    for layer in spec.layers:
        rows = hasher.ragged_rows(layer, stream, offsets)
        for place, order in enumerate(spec.orders):
            yield RowStream(layer, f"{order}-grams", rows[:, place * spec.heads : (place + 1) * spec.heads])
        yield RowStream(layer, "all", rows)


def traffic(stream: RowStream, cache_rows: int) -> Traffic:
    """What a stream asks of a cache that holds `cache_rows` rows."""
    reads = stream.rows.reshape(-1)
    curve = miss_curve(reads, asked=cache_rows)
    miss, error = curve.at(cache_rows)
    return Traffic(
        layer=stream.layer,
        orders=stream.orders,
        reads=reads.size,
        distinct_rows=int(curve.cache_rows[-1]),
        exact=curve.exact,
        lru_hit_percent=100 * (1 - miss),
        lru_error_percent=100 * error,
        static_hit_percent=100 * float(static_hot(reads, np.array([cache_rows]))[0]),
        distinct_rows_per_batch={
            str(batch): distinct_per_batch(stream.rows, batch) if batch <= len(stream.rows) else None for batch in BATCHES
        },
        curve=curve,
    )
