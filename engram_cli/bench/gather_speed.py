"""How fast rows in memory are gathered, beside numpy, torch and engramdb-python: the warm figures of `engram bench gather`.

Every call gathers other rows of a table much larger than the caches, so that rows come from memory as they do in use. Ways
take turns, and the median of the rounds counts. Each peer is in its strongest form: numpy clips row numbers in place of
checking them, and torch and numpy have the table in memory of their own, in large pages, where ours is mapped from its files.
"""

import importlib.util
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from engram_cli.bench.timing import time_in_turn
from hashing.base.cores import CORES
from hashing.spec import NO_VOCAB, HashSpec, assign_primes, seeded_multipliers
from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.gather import ALONE_BYTES, Table
from table.store.manifest import shard_path
from table.store.store import TableStore, write_store

HEAD_DIM, ROW_BYTES = 64, 256
# Rows of a call: one, a token's of a large model, a short prompt's, a long one's, a batch's.
SIZES = (1, 48, 1000, 32_768, 1 << 20)
PEERS = ("numpy_take", "torch_index_select", "torch_embedding")
TURN_ROWS = 1 << 22  # of a turn: after a rest, memory and the scheduler take some ten milliseconds to come to speed
REST_SEC = 0.02  # before each turn: for 5 ms torch's threads wait busily for more work, and would take a core from the next way
LEAST_CALLS, MOST_CALLS = 8, 4096  # of a turn
MOST_ROWS = 1 << 23  # drawn for one size, then drawn again: 2 GiB of them, far more than caches hold
REFERENCE_ROWS = 1 << 16  # engramdb-python is given no more at a time: it takes a second for a million

Rows = tuple[NDArray[np.int64], torch.Tensor]  # the same row numbers for numpy and for torch
Ways = dict[str, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class BatchSpeed:
    """Median seconds a call that gathers `rows` rows, by way."""

    rows: int
    given_sec: dict[str, float]  # into memory that is there; torch_embedding has no such form and allocates
    fresh_sec: dict[str, float]  # into memory that the call allocates
    copy_sec: float  # torch's copy of as many consecutive rows, into memory that is there: what memory can do

    def times_fastest_peer(self, way: str) -> float:
        """How long a way takes in units of the fastest peer's time, into memory that is there."""
        return self.given_sec[way] / min(self.given_sec[peer] for peer in PEERS)

    def moved_bytes_per_sec(self, seconds: float) -> float:
        """Bytes of float32 rows read and written in a call that takes so long."""
        return 2 * self.rows * ROW_BYTES / seconds


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


def measure(store: TableStore, fp8: TableStore, rows: int, folder: Path, rounds: int) -> BatchSpeed:
    """Times calls of so many rows; `folder` is where engramdb-python's view of the store is put, if it is installed."""
    table, narrow = (touched(found.table(1)) for found in (store, fp8))
    array = store.layer(1).copy()
    given = given_ways(table, narrow, array, rows)
    fresh = fresh_ways(table, narrow, array, rows)
    if importlib.util.find_spec("engramdb") and rows <= REFERENCE_ROWS:
        few, reference = number_lists(table.rows, rows), engramdb_store(store, folder / f"engramdb_{rows}")
        fresh["engramdb"] = lambda: reference.fetch(next(few))
    calls = max(LEAST_CALLS, min(MOST_CALLS, TURN_ROWS // rows))
    given_sec, fresh_sec = (
        {way: median(seconds) for way, seconds in time_in_turn(ways, rounds, calls, rest).items()}
        for ways in (given | {"copy": copying(array, rows)}, fresh)
    )
    return BatchSpeed(rows, given_sec, fresh_sec, given_sec.pop("copy"))


def rest() -> None:
    """Lets every thread come to rest."""
    sleep(REST_SEC)


def touched(table: Table) -> Table:
    """The table with all its pages mapped, as after some use: a first touch costs more than the row."""
    table.records.reshape(-1)[:: mmap.PAGESIZE].sum()
    return table


def threads(rows: int) -> dict[str, int]:
    """How many threads each way may use for so many rows."""
    own = 1 if rows * 4 * HEAD_DIM <= ALONE_BYTES else CORES
    peers = {way: torch.get_num_threads() for way in ("torch_index_select", "torch_embedding", "copy")}
    return {"engram": own, "engram_fp8": own, "numpy_take": 1, "engramdb": 1, **peers}


def given_ways(table: Table, fp8: Table, array: NDArray[np.float32], count: int) -> Ways:
    """Ways to gather the next `count` rows into memory that is there."""
    numbers = row_numbers(table.rows, count)
    out, tensor, weight = np.empty((count, HEAD_DIM), np.float32), torch.empty(count, HEAD_DIM), torch.from_numpy(array)
    return {
        "engram": lambda: table.gather(next(numbers)[0], out),
        "engram_fp8": lambda: fp8.gather(next(numbers)[0], out),
        "numpy_take": lambda: np.take(array, next(numbers)[0], 0, out=out, mode="clip"),
        "torch_index_select": lambda: torch.index_select(weight, 0, next(numbers)[1], out=tensor),
        "torch_embedding": lambda: F.embedding(next(numbers)[1], weight),
    }


def fresh_ways(table: Table, fp8: Table, array: NDArray[np.float32], count: int) -> Ways:
    """Ways to gather the next `count` rows into memory that each call allocates."""
    numbers, weight = row_numbers(table.rows, count), torch.from_numpy(array)
    return {
        "engram": lambda: table.gather(next(numbers)[0]),
        "engram_fp8": lambda: fp8.gather(next(numbers)[0]),
        "numpy_take": lambda: np.take(array, next(numbers)[0], 0, mode="clip"),
        "torch_index_select": lambda: torch.index_select(weight, 0, next(numbers)[1]),
        "torch_embedding": lambda: F.embedding(next(numbers)[1], weight),
    }


def row_numbers(rows: int, count: int) -> Iterator[Rows]:
    """Without end, `count` random rows of a table at a time, for numpy and for torch."""
    calls = max(2, min(1 << 16, MOST_ROWS // count))
    drawn = np.random.default_rng(1).integers(0, rows, (calls, count))
    return cycle([(some, torch.from_numpy(some)) for some in drawn])


def number_lists(rows: int, count: int) -> Iterator[list[int]]:
    """The same as lists, which engramdb-python takes."""
    random = np.random.default_rng(2)
    return cycle([random.integers(0, rows, count).tolist() for _ in range(max(2, (1 << 20) // count // 16))])


def copying(array: NDArray[np.float32], count: int) -> Callable[[], object]:
    """Copies `count` consecutive rows, others at each call, into memory that is there."""
    weight, out = torch.from_numpy(array), torch.empty(count, HEAD_DIM)
    firsts = np.random.default_rng(3).integers(0, len(array) - count + 1, max(2, min(1 << 12, MOST_ROWS // count)))
    sources = cycle([weight[first : first + count] for first in firsts.tolist()])
    return lambda: out.copy_(next(sources))


def engramdb_store(store: TableStore, folder: Path) -> Any:
    """engramdb-python's store over the same shard files, under the names that it looks for."""
    import engramdb

    folder.mkdir()
    shards = store.manifest.shard_count(1)
    for shard in range(shards):
        (folder / f"shard_{shard:03}.bin").symlink_to(shard_path(store.path, 1, shard).absolute())
    return engramdb.Store(str(folder), shards=shards, rows_per_shard=store.manifest.layers[1].shard_rows, width=ROW_BYTES)
