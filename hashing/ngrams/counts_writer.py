"""Writing files of counts: a row group for each window of partitions, encoded by one thread while others count the next.

Ids and counts are stored byte plane by byte plane (BYTE_STREAM_SPLIT), then compressed by LZ4: half the time of compressing
whole numbers, and smaller, because the upper planes are nearly all zeros.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hashing.base.atomic import atomic_path
from hashing.base.errors import EngramError
from hashing.ngrams.counts import FORMAT, METADATA_KEY, SOURCE_KEY, NgramCounts, Totals
from hashing.ngrams.packing import Packing
from hashing.ngrams.runs import DiskRun, Fields, Run, merged_windows, window_count
from hashing.ngrams.scratch import Scratch
from hashing.ngrams.source import Source

WINDOW_TOKENS = 1 << 17  # of the corpus for each window, if n-grams were spread evenly
WAITING = 2  # tables that wait to be written, beside the one that is: what there is to encode while n-grams are scattered
ENCODED_AT_ONCE = 1 << 16  # values of a column; Arrow's own 1024 take a twentieth longer
NARROW_TOKENS = 1 << 31  # a corpus of fewer has counts that fit 32 bits


def schema_of(totals: Totals, source: Source | None = None) -> pa.Schema:
    """The columns and metadata of a file of counts; only ids that some order lacks may be null: others are written faster."""
    shortest, longest = totals.orders[0], totals.orders[-1]
    ids = [pa.field(f"id_{i}", pa.int32(), nullable=i > shortest) for i in range(1, longest + 1)]
    count_type = pa.int32() if totals.tokens < NARROW_TOKENS else pa.int64()
    counts = [pa.field(name, count_type, nullable=False) for name in ("count", "documents")]
    metadata = {METADATA_KEY: json.dumps({"format": FORMAT, **asdict(totals)}, sort_keys=True)}
    if source:
        metadata[SOURCE_KEY] = source.to_json()
    return pa.schema([pa.field("order", pa.int8(), nullable=False), *ids, *counts], metadata)


def table_of(schema: pa.Schema, order: int, packing: Packing, run: Run) -> pa.Table:
    """The rows of a run; nothing of the run's memory is kept."""
    mixed, rest, *numbers = run.fields
    ids = packing.unpack(mixed, rest, order)
    beyond = [pa.nulls(len(run), pa.int32())] * (packing.longest - order)
    counts = [pa.array(field.astype(schema.field("count").type.to_pandas_dtype())) for field in numbers]
    return pa.table([pa.array(np.full(len(run), order, np.int8)), *map(pa.array, ids), *beyond, *counts], schema)


def merged_tables(totals: Totals, order: int, runs: Sequence[DiskRun], windows: int) -> Iterator[pa.Table]:
    """The sum of some runs of an order, window by window."""
    schema = schema_of(totals)
    for run in merged_windows(runs, windows):
        yield table_of(schema, order, totals.packing, run)


def write_counts(path: Path, totals: Totals, tables: Iterable[pa.Table], source: Source | None = None) -> None:
    """Writes tables as they come, each a row group."""
    schema = schema_of(totals, source)
    split = dict.fromkeys(schema.names[1:], "BYTE_STREAM_SPLIT")
    options: dict[str, Any] = {"use_dictionary": False, "write_statistics": ["order"], "column_encoding": split}
    options["write_batch_size"] = ENCODED_AT_ONCE
    options["memory_pool"] = pa.system_memory_pool()  # Arrow's own keeps 10 MB more of what it frees
    waiting: deque[Future[None]] = deque()
    with (
        pq.ParquetWriter(path, schema, compression="lz4", **options) as writer,
        ThreadPoolExecutor(1, thread_name_prefix="write") as thread,
    ):
        for table in tables:
            if len(table):
                waiting.append(thread.submit(writer.write_table, table, row_group_size=len(table)))
            if len(waiting) > WAITING:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()


def merge_counts(paths: Sequence[Path], path: Path, source: Source | None = None) -> Totals:
    """Writes the sum of several files, of parts of a corpus; `source` is what the parts together are of, where that is known.

    Raises EngramError when they do not belong together.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, flushed=False) as partial, Scratch(path.parent) as scratch:
        return write_merged(paths, partial, scratch, source)


def write_merged(paths: Sequence[Path], path: Path, scratch: Scratch, source: Source | None = None) -> Totals:
    """Writes the sum to a new file, as `merge_counts` does, a window of n-grams at a time."""
    files = [NgramCounts.open(part) for part in paths]
    first = files[0].totals
    for file in files[1:]:
        file.check_vocab(first.vocab_fingerprint)
        if file.totals.orders != first.orders:
            raise EngramError(
                f"{file.path} has orders {file.totals.orders}, but {files[0].path} has {first.orders}",
                hint="count all parts with one --spec",
            )
    tokens, documents = sum(f.totals.tokens for f in files), sum(f.totals.documents for f in files)
    totals = Totals(first.orders, tokens, documents, first.canonical_size, first.vocab_fingerprint)
    windows = window_count(tokens, WINDOW_TOKENS)
    runs = ((n, [_as_run(file, n, scratch.path(f"{n}-{i}")) for i, file in enumerate(files)]) for n in first.orders)
    write_counts(path, totals, (table for n, parts in runs for table in merged_tables(totals, n, parts, windows)), source)
    return totals


def _as_run(file: NgramCounts, order: int, path: Path) -> DiskRun:
    def pieces() -> Iterator[tuple[NDArray[np.uint64], Fields]]:
        for piece in file.pieces(order):
            partition, mixed, rest = file.totals.packing.pack(piece.ids)
            yield partition, (mixed, rest, piece.counts, piece.documents)

    return DiskRun.write_sorted(path, pieces())
