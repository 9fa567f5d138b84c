"""How fast rows are gathered, beside other ways to do it: the figures of `engram bench gather`.

One table of float32 rows, 256 bytes each, in shard files; the same files serve every way that can read them. Ways are timed in
turn, several rounds, and the best of each counts, so that a busy moment of the machine hits none alone. Cold trials drop the
table from the page cache first.
"""

import importlib.util
import mmap
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashing.named_specs import NO_VOCAB
from hashing.spec import HashSpec, assign_primes, seeded_multipliers
from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.gather import Table
from table.store.manifest import shard_path
from table.store.store import TableStore, write_store

HEAD_DIM, ROW_BYTES = 64, 256
ROUNDS = 7
COLD_THREADS = 32  # of the plain reads that say what the drive can do
REFERENCE_ROWS = 1 << 16  # of the slow reference


def make_tables(folder: Path, table_bytes: int) -> tuple[TableStore, TableStore]:
    """A float32 table of about so many bytes, random, and the same in FP8."""
    layers, heads = (1,), 8
    spec = HashSpec(
        layers=layers,
        primes=assign_primes(1, 2, heads, table_bytes // ROW_BYTES // (2 * heads)),
        multipliers=seeded_multipliers("numpy", 0, layers, 3, 1000),
        pad_id=0,
        canonical_size=1000,
        vocab_fingerprint=NO_VOCAB,
    )
    table = np.random.default_rng(0).standard_normal((spec.rows(1), HEAD_DIM), np.float32)
    store = write_store(folder / "float32.zarr", spec, np.empty(0, np.int32), {1: table})
    return store, convert(store, folder / "fp8.zarr", ENCODINGS["e4m3-e8m0"])


def warm_rates(store: TableStore, decoded: TableStore, count: int, folder: Path) -> dict[str, float]:
    """Rows per second of each way; torch is timed into a fresh tensor, its usual form, and into one that is there."""
    table, fp8 = store.table(1), decoded.table(1)
    rows = np.random.default_rng(1).integers(0, table.rows, count)
    out = np.empty((count, HEAD_DIM), np.float32)
    weight, index, tensor = torch.from_numpy(store.layer(1).copy()), torch.from_numpy(rows), torch.empty(count, HEAD_DIM)
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "engram": (count, lambda: table.gather(rows, out)),
        "engram_fp8": (count, lambda: fp8.gather(rows, out)),
        "index_select": (count, lambda: torch.index_select(weight, 0, index)),
        "index_select_into": (count, lambda: torch.index_select(weight, 0, index, out=tensor)),
    }
    if importlib.util.find_spec("engramdb"):
        few = rows[:REFERENCE_ROWS].tolist()
        reference = engramdb_store(store, folder)
        ways["engramdb"] = (len(few), lambda: reference.fetch(few))
    return best_rates(ways)


def engramdb_store(store: TableStore, folder: Path) -> Any:
    """The reference over the same shard files, under the names that it looks for."""
    import engramdb

    folder.mkdir()
    shards = store.manifest.shard_count(1)
    for shard in range(shards):
        (folder / f"shard_{shard:03}.bin").symlink_to(shard_path(store.path, 1, shard).absolute())
    return engramdb.Store(str(folder), shards=shards, rows_per_shard=store.manifest.layers[1].shard_rows, width=ROW_BYTES)


def best_rates(ways: dict[str, tuple[int, Callable[[], object]]]) -> dict[str, float]:
    """Of each way, given the rows it gathers: rows per second in its best round."""
    best = dict.fromkeys(ways, float("inf"))
    for way in [name for name in ways for _ in range(2)]:
        ways[way][1]()
    for _ in range(ROUNDS):
        for name, (_, work) in ways.items():
            began = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: ways[name][0] / seconds for name, seconds in best.items()}


def cold_rates(store: TableStore, count: int) -> dict[str, float]:
    """Rows per second from the drive: asked for at once, one page fault at a time, and what threads that only read get."""
    random = np.random.default_rng(2)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, work in (("engram", _asked), ("fault_at_a_time", _faults), ("fault_at_a_time_readahead", _plain_faults)):
            rows = random.integers(0, store.spec.rows(1), count if name != "fault_at_a_time_readahead" else count // 8)
            drop_cache(store)
            table = store.table(1)
            best[name] = max(best.get(name, 0), len(rows) / work(table, rows))
            del table
        rows = random.integers(0, store.spec.rows(1), count)
        drop_cache(store)
        best["plain_pread"] = max(best.get("plain_pread", 0), count / _read(store, rows))
    return best


def _asked(table: Table, rows: NDArray[np.int64]) -> float:
    out = np.empty((len(rows), HEAD_DIM), np.float32)
    began = time.perf_counter()
    table.read_ahead(rows)
    table.gather(rows, out)
    return time.perf_counter() - began


def _faults(table: Table, rows: NDArray[np.int64]) -> float:
    """Each fault reads its page alone."""
    table.advise(mmap.MADV_RANDOM)
    return _plain_faults(table, rows)


def _plain_faults(table: Table, rows: NDArray[np.int64]) -> float:
    """Each fault reads as much around its page as the kernel is set to."""
    out = np.empty((1, HEAD_DIM), np.float32)
    began = time.perf_counter()
    for row in rows:
        table.gather(row[None], out)
    return time.perf_counter() - began


def _read(store: TableStore, rows: NDArray[np.int64]) -> float:
    """Seconds for plain threaded reads of the rows' pages, each once."""
    per_shard = store.manifest.layers[1].shard_rows
    pages = np.unique(np.stack([rows // per_shard, rows % per_shard * ROW_BYTES // mmap.PAGESIZE]), axis=1)
    files = [os.open(shard_path(store.path, 1, shard), os.O_RDONLY) for shard in range(store.manifest.shard_count(1))]
    places = [(files[shard], int(page) * mmap.PAGESIZE) for shard, page in np.random.default_rng(3).permutation(pages.T)]

    def work(some: Sequence[tuple[int, int]]) -> None:
        for descriptor, offset in some:
            os.pread(descriptor, mmap.PAGESIZE, offset)

    with ThreadPoolExecutor(COLD_THREADS) as threads:
        began = time.perf_counter()
        list(threads.map(work, [places[i::COLD_THREADS] for i in range(COLD_THREADS)]))
        seconds = time.perf_counter() - began
    for descriptor in files:
        os.close(descriptor)
    return seconds


def drop_cache(store: TableStore) -> None:
    """Takes the table's shards out of the page cache; no mapping of them may be open."""
    for shard in range(store.manifest.shard_count(1)):
        descriptor = os.open(shard_path(store.path, 1, shard), os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
