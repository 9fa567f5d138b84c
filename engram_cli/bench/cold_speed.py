"""How fast rows come from the drive, asked for ahead or by page faults: the cold figures of `engram bench gather`.

Every trial begins with the table out of the page cache and maps it anew; ways take turns, and the best round of each counts.
"""

import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from engram_cli.bench.timing import time_in_turn
from table.store.gather import Table
from table.store.manifest import shard_path
from table.store.store import TableStore

ROUNDS = 7
READERS = 32  # threads of the plain reads that say what the drive can do
FEWER = 8  # times fewer rows for the slowest way

Rows = NDArray[np.int64]


def cold_rates(store: TableStore, count: int, rounds: int = ROUNDS) -> dict[str, float]:
    """Rows per second from the drive, by way, `count` random rows at a time."""
    random = np.random.default_rng(2)
    fewer = max(1, count // FEWER)

    def some(number: int) -> Rows:
        return random.integers(0, store.spec.rows(1), number)

    ways = {
        "engram": lambda: asked_ahead(store.table(1), some(count)),
        "fault_at_a_time": lambda: page_faults(without_neighbours(store.table(1)), some(count)),
        "fault_at_a_time_readahead": lambda: page_faults(store.table(1), some(fewer)),
        "plain_pread": lambda: plain_reads(store, some(count)),
    }
    counts = dict.fromkeys(ways, count) | {"fault_at_a_time_readahead": fewer}
    seconds = time_in_turn(ways, rounds, before=lambda: drop_cache(store))
    return {way: counts[way] / min(times) for way, times in seconds.items()}


def asked_ahead(table: Table, rows: Rows) -> NDArray[np.float32]:
    """The vectors of rows that the drive was asked for all at once."""
    table.read_ahead(rows)
    return table.gather(rows)


def without_neighbours(table: Table) -> Table:
    """The table, each of whose page faults reads that page alone."""
    table.advise(mmap.MADV_RANDOM)
    return table


def page_faults(table: Table, rows: Rows) -> NDArray[np.float32]:
    """The vectors of rows, gathered one after the other."""
    vectors = np.empty((len(rows), table.head_dim), np.float32)
    for i in range(len(rows)):
        table.gather(rows[i : i + 1], vectors[i : i + 1])
    return vectors


def plain_reads(store: TableStore, rows: Rows) -> int:
    """Reads the pages where rows begin, each once and in no order, by threads that do nothing else; gives how many bytes."""
    per_shard = store.manifest.layers[1].shard_rows
    pages = np.unique(np.stack([rows // per_shard, rows % per_shard * store.row_bytes // mmap.PAGESIZE]), axis=1)
    files = [os.open(shard_path(store.path, 1, shard), os.O_RDONLY) for shard in range(store.manifest.shard_count(1))]
    places = [(files[shard], int(page) * mmap.PAGESIZE) for shard, page in np.random.default_rng(3).permutation(pages.T)]

    def work(some: Sequence[tuple[int, int]]) -> int:
        return sum(len(os.pread(descriptor, mmap.PAGESIZE, offset)) for descriptor, offset in some)

    with ThreadPoolExecutor(READERS) as threads:
        total = sum(threads.map(work, [places[i::READERS] for i in range(READERS)]))
    for descriptor in files:
        os.close(descriptor)
    return total


def drop_cache(store: TableStore) -> None:
    """Takes the table's shards out of the page cache; no mapping of them may be open."""
    for shard in range(store.manifest.shard_count(1)):
        descriptor = os.open(shard_path(store.path, 1, shard), os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
