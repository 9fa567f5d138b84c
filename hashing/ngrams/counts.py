"""NgramCounts: how often every n-gram of canonical ids occurs in a corpus, exactly, in one Parquet file.

`ngrams.parquet` is the format. Columns: order (int8); id_1 … id_N (int32), the n-gram in reading order, -1 for what lies before
its document, null beyond its order; count and documents (int32 for a corpus of fewer than 2^31 tokens, else int64, and either
is read). Rows are sorted by order, then by the partition and the hash of `partition_kernel.py`, so that files merge partition
by partition. Metadata under "engram.counts": format, orders, tokens, documents, canonical_size, vocab_fingerprint; under
"engram.source", where it is known, what was counted (`source.py`). Every token ends one n-gram of each order, so the counts of
an order add up to `tokens`. `counter.py` makes such files and `counts_writer.py` writes them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.base.json_object import JsonObject, parse_json
from hashing.ngrams.source import Source
from hashing.spec import MAX_ORDER

if TYPE_CHECKING:
    from hashing.ngrams.packing import Packing

FORMAT = 1
METADATA_KEY = "engram.counts"
SOURCE_KEY = "engram.source"
COUNTED_BY = "engram stats CORPUS --counts FILE makes one"
AGAIN = "count again with --force"
PIECE_NGRAMS = 1 << 18  # read at a time: a few MiB


@dataclass(frozen=True, slots=True)
class Totals:
    """What a counts file says of itself."""

    orders: tuple[int, ...]
    tokens: int
    documents: int
    canonical_size: int
    vocab_fingerprint: str

    @property
    def packing(self) -> "Packing":
        from hashing.ngrams.packing import Packing  # here, because it loads compiled code, and who reads counts needs none

        return Packing(self.orders[-1], self.canonical_size)


def _totals(content: JsonObject) -> Totals:
    """What the metadata says. Raises EngramError when it is of another format, or not of its form."""
    if (found := content.integer("format")) != FORMAT:
        raise EngramError(f"{content.where} is of format {found}; this version reads format {FORMAT}")
    content.check_names("format", "orders", "tokens", "documents", "canonical_size", "vocab_fingerprint")
    orders = content.integers("orders", least=2, most=MAX_ORDER)
    if not orders or list(orders) != sorted(set(orders)):
        raise content.refusal("orders", list(orders), "orders, each once, the longest last")
    return Totals(
        orders,
        content.integer("tokens", least=1),
        content.integer("documents", least=1),
        content.integer("canonical_size", least=1),
        content.text("vocab_fingerprint"),
    )


@dataclass(frozen=True, slots=True)
class OrderCounts:
    ids: NDArray[np.int32]  # (D, n) in reading order, -1 before the document
    counts: NDArray[np.int64]  # (D,)
    documents: NDArray[np.int64]  # (D,) in how many of them each occurs

    def of(self, ngrams: NDArray[np.integer]) -> NDArray[np.int64]:
        """(M,) How often each of some n-grams (M, n) occurs: 0 for those that do not.

        One pass over the counted n-grams for each of their ids, in which those drop out that begin like none of the M.
        """
        if not len(ngrams):
            return np.zeros(0, np.int64)
        asked, which = np.unique(ngrams.astype(np.int64), axis=0, return_inverse=True)
        width = 2 + max(int(asked.max()), int(self.ids.max(initial=0)))
        codes, left = np.zeros(len(asked), np.int64), np.arange(len(self.ids))
        left_codes = np.zeros(len(left), np.int64)  # which of the distinct beginnings each counted n-gram has
        for number in range(asked.shape[1]):
            distinct, codes = np.unique(codes * width + asked[:, number] + 1, return_inverse=True)
            extended = left_codes * width + self.ids[left, number] + 1
            at = np.minimum(np.searchsorted(distinct, extended), len(distinct) - 1)
            known = distinct[at] == extended
            left, left_codes = left[known], at[known]
        counts = np.zeros(len(asked), np.int64)  # by code; the rows of `asked` are distinct, so their codes are
        counts[left_codes] = self.counts[left]
        return counts[codes][which.reshape(-1)]


@dataclass(frozen=True, slots=True)
class NgramCounts:
    """An opened file of counts. Raises EngramError, from `open`, for whatever is not one."""

    path: Path
    totals: Totals
    source: Source | None = None  # None where the file does not say: counts that were merged, or of an older version

    @classmethod
    def open(cls, path: Path) -> "NgramCounts":
        try:
            metadata = pq.read_schema(path).metadata or {}
        except FileNotFoundError as e:
            raise EngramError(f"no such file: {path}", hint=COUNTED_BY) from e
        except pa.ArrowInvalid as e:
            raise EngramError(f"{path} cannot be read as Parquet: {str(e).splitlines()[0]}", hint=COUNTED_BY) from e
        if METADATA_KEY.encode() not in metadata:
            raise EngramError(f"{path} is not a file of n-gram counts: its metadata does not say so", hint=COUNTED_BY)
        where = f"{path} is damaged: its metadata"
        source = metadata.get(SOURCE_KEY.encode())
        return cls(
            path,
            _totals(parse_json(metadata[METADATA_KEY.encode()], where)),
            Source.from_json(parse_json(source, where)) if source else None,
        )

    def check_vocab(self, fingerprint: str) -> None:
        """Raises EngramError when the counts were made with another vocabulary."""
        if fingerprint != self.totals.vocab_fingerprint:
            raise EngramError(
                f"{self.path} was counted with vocabulary {self.totals.vocab_fingerprint}, but the one given is {fingerprint}",
                hint="count again with --force, or name the run whose vocabulary it was",
            )

    def order(self, order: int) -> OrderCounts:
        """All n-grams of an order. Raises EngramError when the order was not counted, or the file is damaged."""
        parts = list(self.pieces(order))
        return OrderCounts(*(np.concatenate([getattr(part, name) for part in parts]) for name in OrderCounts.__slots__))

    def pieces(self, order: int) -> Iterator[OrderCounts]:
        """The n-grams of an order, some at a time: memory does not grow with the file.

        Raises EngramError when the order was not counted, or, at the latest after the last piece, when the file is damaged.
        """
        if order not in self.totals.orders:
            known = ", ".join(map(str, self.totals.orders))
            raise EngramError(f"{self.path} has no {order}-grams; it has orders {known}", hint=AGAIN)
        total, least = 0, 1
        try:
            for batch in self._batches(order):
                piece = _piece(order, batch)
                self._check_ids(piece)
                total, least = total + int(piece.counts.sum()), min(least, int(piece.counts.min()))
                yield piece
        except (pa.ArrowInvalid, OSError) as e:
            raise EngramError(f"{self.path} is damaged: {str(e).splitlines()[0]}", hint=AGAIN) from e
        if total != self.totals.tokens or least < 1:  # every token ends one n-gram, so the counts add up to the tokens
            raise EngramError(
                f"{self.path} is damaged: its {order}-grams add up to {total} tokens, expected {self.totals.tokens}",
                hint=AGAIN,
            )

    def _batches(self, order: int) -> Iterator[pa.RecordBatch]:
        """Rows of the order, from the row groups that may have some."""
        columns = ["order", *(f"id_{i}" for i in range(1, order + 1)), "count", "documents"]
        with pq.ParquetFile(self.path) as file:
            groups = [i for i in range(file.num_row_groups) if _may_hold(file.metadata.row_group(i).column(0), order)]
            for batch in file.iter_batches(PIECE_NGRAMS, row_groups=groups, columns=columns):
                chosen = batch["order"].to_numpy() == order
                if (found := batch if chosen.all() else batch.filter(pa.array(chosen))).num_rows:
                    yield found

    def _check_ids(self, found: OrderCounts) -> None:
        if found.ids.min() < -1 or found.ids.max() >= self.totals.canonical_size:
            raise EngramError(
                f"{self.path} is damaged: it holds an id outside {self.totals.canonical_size} canonical ids", hint=AGAIN
            )


def _may_hold(orders: Any, order: int) -> bool:
    """Whether a row group can have n-grams of the order, by what is written of its column of orders."""
    known = orders.statistics
    return known is None or not known.has_min_max or bool(known.min <= order <= known.max)


def _piece(order: int, batch: pa.RecordBatch) -> OrderCounts:
    columns = [batch[name].to_numpy(zero_copy_only=False) for name in batch.schema.names[1:]]
    ids = np.stack(columns[:order], axis=1).astype(np.int32)
    return OrderCounts(ids, *(column.astype(np.int64) for column in columns[order:]))
