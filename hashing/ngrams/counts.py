"""NgramCounts: how often every n-gram of canonical ids occurs in a corpus, exactly, in one Parquet file.

`ngrams.parquet` is the format. Columns: order (int8); id_1 … id_N (int32), the n-gram in reading order, -1 for what lies before
its document, null beyond its order; count and documents (int64). Rows are sorted by order, then by the partition and the hash
of `partition_kernel.py`, so that files merge partition by partition. Metadata under "engram.counts": format, orders, tokens,
documents, canonical_size, vocab_fingerprint. Every token ends one n-gram of each order, so the counts of an order add up to
`tokens`. `counter.py` makes such files.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hashing.base.atomic import atomic_path
from hashing.base.errors import EngramError
from hashing.ngrams import partition_kernel as kernel

FORMAT = 1
WINDOW_NGRAMS = 1 << 18  # merged and written at a time, about

Fields = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]  # mixed, rest, count, documents


@dataclass(frozen=True, slots=True)
class Run:
    """Sorted distinct n-grams of one order, in memory."""

    bounds: NDArray[np.int64]  # (partitions + 1,) where each partition begins
    fields: Fields

    def part(self, first: int, last: int) -> "Run":
        """The run of partitions first..last."""
        begin, end = self.bounds[first], self.bounds[last]
        mixed, rest, count, documents = (field[begin:end] for field in self.fields)
        return Run(self.bounds[first : last + 1] - begin, (mixed, rest, count, documents))


@dataclass(frozen=True, slots=True)
class DiskRun:
    """A run in a file: its fields one after the other."""

    path: Path
    bounds: NDArray[np.int64]
    kinds: tuple[np.dtype[Any], ...]  # of the fields

    @classmethod
    def write(cls, path: Path, run: Run) -> "DiskRun":
        with path.open("wb") as file:
            for field in run.fields:
                file.write(np.ascontiguousarray(field).data)
        return cls(path, run.bounds, tuple(field.dtype for field in run.fields))

    def part(self, first: int, last: int) -> Run:
        begin, end, total = (int(self.bounds[i]) for i in (first, last, -1))
        offsets = np.cumsum([0, *(total * kind.itemsize for kind in self.kinds)])
        mixed, rest, count, documents = (
            np.fromfile(self.path, kind, end - begin, offset=int(offset) + begin * kind.itemsize)
            for kind, offset in zip(self.kinds, offsets[:-1], strict=True)
        )
        return Run(self.bounds[first : last + 1] - begin, (mixed, rest, count, documents))


def merged(left: Run, right: Run) -> Run:
    size = len(left.fields[0]) + len(right.fields[0])
    bounds = np.zeros_like(left.bounds)
    out = (np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.int64))
    kernel.merge(left.bounds, left.fields, right.bounds, right.fields, bounds, out)
    mixed, rest, count, documents = (field[: bounds[-1]] for field in out)
    return Run(bounds, (mixed, rest, count, documents))


@dataclass(frozen=True, slots=True)
class Packing:
    """How n-grams up to `longest` over `canonical_size` ids fill two 64-bit words."""

    longest: int
    canonical_size: int

    def __post_init__(self) -> None:
        if self.longest > 2 * self.in_first:
            raise EngramError(f"n-grams of {self.longest} out of {self.canonical_size} canonical ids do not fit 128 bits")

    @property
    def bits(self) -> int:
        return self.canonical_size.bit_length()

    @property
    def in_first(self) -> int:
        return min(self.longest, 64 // self.bits)

    def pack(self, ids: NDArray[np.int32]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
        """(partition, mixed, rest) of n-grams (count, order); the inverse of `unpack`."""
        words = np.zeros((2, len(ids)), np.uint64)
        for distance in range(ids.shape[1]):
            here = (ids[:, ids.shape[1] - 1 - distance].astype(np.int64) + 1).astype(np.uint64)
            place, word = (distance, 0) if distance < self.in_first else (distance - self.in_first, 1)
            words[word] |= here << np.uint64(self.bits * place)
        pairs = words[0] & np.uint64((1 << 2 * self.bits) - 1)
        product = (words[0] ^ (words[1] * kernel.FOLD)) * kernel.SPREAD
        mixed = (product << kernel.ROTATION) | (product >> kernel.PARTITION_SHIFT)
        return (pairs * kernel.SPREAD) >> kernel.PARTITION_SHIFT, mixed, words[1]

    def unpack(self, run: Run, order: int) -> NDArray[np.int32]:
        """(count, order) The n-grams of a run."""
        return kernel.unpack(run.fields[0], run.fields[1], order, self.bits, self.in_first)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a counts file says of itself."""

    orders: tuple[int, ...]
    tokens: int
    documents: int
    canonical_size: int
    vocab_fingerprint: str

    def __post_init__(self) -> None:
        for name, value in (("tokens", self.tokens), ("documents", self.documents), ("canonical_size", self.canonical_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}, expected a whole number above 0")

    @property
    def packing(self) -> Packing:
        return Packing(self.orders[-1], self.canonical_size)


@dataclass(frozen=True, slots=True)
class OrderCounts:
    ids: NDArray[np.int32]  # (D, n) in reading order, -1 before the document
    counts: NDArray[np.int64]  # (D,)
    documents: NDArray[np.int64]  # (D,) in how many of them each occurs


@dataclass(frozen=True, slots=True)
class NgramCounts:
    """An opened file of counts. Raises EngramError, from `open`, for whatever is not one."""

    path: Path
    totals: Totals

    @classmethod
    def open(cls, path: Path) -> "NgramCounts":
        try:
            metadata = pq.read_schema(path).metadata or {}
        except FileNotFoundError as e:
            raise EngramError(f"no such file: {path}", hint="count a corpus with engram stats") from e
        except pa.ArrowInvalid as e:
            raise EngramError(f"{path} cannot be read as Parquet: {str(e).splitlines()[0]}") from e
        if b"engram.counts" not in metadata:
            raise EngramError(f"{path} is not a file of n-gram counts: its metadata does not say so")
        try:
            content = json.loads(metadata[b"engram.counts"])
            if (found := content.pop("format", None)) != FORMAT:
                raise EngramError(f"{path} has format {found}; this version reads format {FORMAT}")
            return cls(path, Totals(**{**content, "orders": tuple(content["orders"])}))
        except (ValueError, TypeError, AttributeError, KeyError) as e:
            raise EngramError(f"{path} is damaged: its metadata is not that of a file of counts ({e})") from e

    def check_vocab(self, fingerprint: str) -> None:
        """Raises EngramError when the counts were made with another vocabulary."""
        if fingerprint != self.totals.vocab_fingerprint:
            raise EngramError(
                f"{self.path} was counted with vocabulary {self.totals.vocab_fingerprint}, but the one given is {fingerprint}",
                hint="count again with --force, or name the run whose vocabulary it was",
            )

    def order(self, order: int) -> OrderCounts:
        """Raises EngramError when the order was not counted, or the file is damaged."""
        if order not in self.totals.orders:
            known = ", ".join(map(str, self.totals.orders))
            raise EngramError(f"{self.path} has no {order}-grams; it has orders {known}", hint="count again with --force")
        columns = [*(f"id_{i}" for i in range(1, order + 1)), "count", "documents"]
        try:
            table = pq.read_table(self.path, columns=columns, filters=[("order", "=", order)])
        except (pa.ArrowInvalid, OSError) as e:
            raise EngramError(f"{self.path} is damaged: {str(e).splitlines()[0]}") from e
        ids = np.stack([table[name].to_numpy() for name in columns[:-2]], axis=1).astype(np.int32)
        found = OrderCounts(ids, table["count"].to_numpy(), table["documents"].to_numpy())
        self._check(order, found)
        return found

    def _check(self, order: int, found: OrderCounts) -> None:
        """Every token ends one n-gram, so the counts add up to the tokens; what does not is damaged."""
        if (total := int(found.counts.sum())) != self.totals.tokens or found.counts.min() < 1:
            raise EngramError(
                f"{self.path} is damaged: its {order}-grams add up to {total} tokens, expected {self.totals.tokens}"
            )
        if found.ids.min() < -1 or found.ids.max() >= self.totals.canonical_size:
            raise EngramError(f"{self.path} is damaged: it holds an id outside {self.totals.canonical_size} canonical ids")


def write_counts(path: Path, totals: Totals, runs: Iterable[tuple[int, Sequence[Run | DiskRun]]]) -> None:
    """Writes the sum of the runs given for each order, which are used up before the next order's are asked for."""
    longest = totals.orders[-1]
    ids = [(f"id_{i}", pa.int32()) for i in range(1, longest + 1)]
    metadata = {"engram.counts": json.dumps({"format": FORMAT, **asdict(totals)}, sort_keys=True)}
    schema = pa.schema([("order", pa.int8()), *ids, ("count", pa.int64()), ("documents", pa.int64())], metadata)
    with (
        atomic_path(path) as partial,
        pq.ParquetWriter(partial, schema, use_dictionary=["order"], compression="zstd", compression_level=1) as writer,
    ):
        for order, sources in runs:
            for run in _windows(sources):
                table = _table(schema, order, totals.packing.unpack(run, order), run)
                writer.write_table(table, row_group_size=max(len(table), 1))


def _windows(sources: Sequence[Run | DiskRun]) -> Iterator[Run]:
    """The sources merged, so many partitions at a time that few n-grams are held."""
    total = sum(int(source.bounds[-1]) for source in sources)
    step = max(1, kernel.PARTITIONS * WINDOW_NGRAMS // max(total, 1))
    for first in range(0, kernel.PARTITIONS, step):
        last = min(first + step, kernel.PARTITIONS)
        run = reduce(merged, [source.part(first, last) for source in sources])
        if len(run.fields[0]):
            yield run


def _table(schema: pa.Schema, order: int, ids: NDArray[np.int32], run: Run) -> pa.Table:
    empty = pa.nulls(len(ids), pa.int32())
    columns = [pa.array(ids[:, i]) if i < order else empty for i in range(len(schema) - 3)]
    counts = [pa.array(field.astype(np.int64)) for field in run.fields[2:]]
    return pa.table([pa.array(np.full(len(ids), order, np.int8)), *columns, *counts], schema)


def merge_counts(paths: Sequence[Path], path: Path) -> Totals:
    """Writes the sum of several files, of parts of a corpus. Raises EngramError when they do not belong together."""
    files = [NgramCounts.open(source) for source in paths]
    first = files[0].totals
    for file in files[1:]:
        file.check_vocab(first.vocab_fingerprint)
        if file.totals.orders != first.orders:
            raise EngramError(f"{file.path} has orders {file.totals.orders}, but {files[0].path} has {first.orders}")
    tokens, documents = sum(f.totals.tokens for f in files), sum(f.totals.documents for f in files)
    totals = Totals(first.orders, tokens, documents, first.canonical_size, first.vocab_fingerprint)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="ngram-runs-") as scratch:
        runs = ((n, [_as_run(file, n, Path(scratch) / f"{i}-{n}") for i, file in enumerate(files)]) for n in first.orders)
        write_counts(path, totals, runs)
    return totals


def _as_run(file: NgramCounts, order: int, path: Path) -> DiskRun:
    counts = file.order(order)
    partition, mixed, rest = file.totals.packing.pack(counts.ids)
    bounds = np.searchsorted(partition, np.arange(kernel.PARTITIONS + 1, dtype=np.uint64)).astype(np.int64)
    return DiskRun.write(path, Run(bounds, (mixed, rest, counts.counts, counts.documents)))
