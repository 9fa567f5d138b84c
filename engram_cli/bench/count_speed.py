"""How fast and in how much memory n-grams of one order are counted, here and by other tools.

All begin with the same canonical ids in memory. `engram` counts documents too, the others only occurrences. duckdb and numpy
get their strongest forms: n-grams packed into one 64-bit word, and a narrow second one where they do not fit. duckdb, already
started, groups by them with as many threads as engram has; numpy sorts them with one. With a file written, both write Parquet
compressed by LZ4. Neither waits for the drive, or replaces a file, since ext4 begins at once to store what takes another's
name. Medians of several rounds in which all take turns.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engram_cli.bench.timing import time_in_turn
from hashing.base.cores import CORES
from hashing.ngrams.buffer import Buffer
from hashing.ngrams.counter import LONGEST_DOCUMENT, NgramCounter
from hashing.ngrams.counts_writer import WINDOW_TOKENS
from hashing.ngrams.packing import Packing
from hashing.ngrams.runs import window_count
from hashing.rule import IDENTITY
from hashing.vocab import CanonicalVocab

ROUNDS = 9
DOCUMENT_TOKENS = 4096
THREADS = {"engram": CORES, "engram_file": CORES, "duckdb": CORES, "duckdb_file": CORES, "numpy": 1}


@dataclass(frozen=True, slots=True)
class CountSpeed:
    """How long it takes to count one order of a stream of tokens, by way."""

    order: int
    tokens: int
    distinct: int
    sec: dict[str, float]
    file_bytes: dict[str, int]

    def times(self, peer: str, ours: str) -> float | None:
        """How many times faster ours is; None without the peer."""
        return self.sec[peer] / self.sec[ours] if peer in self.sec else None


def skewed_ids(tokens: int, size: int) -> NDArray[np.int32]:
    """(tokens,) Random ids below `size`, as skewed as the words of a text but independent of each other."""
    return (np.random.default_rng(0).zipf(1.3, tokens) % size).astype(np.int32)


def packed_keys(ids: NDArray[np.int32], order: int, size: int) -> list[NDArray[Any]]:
    """The n-grams of a stream in one column of 64 bits, or in two, the second as narrow as it can be."""
    bits, length = size.bit_length(), len(ids) - order + 1
    in_first = min(order, 63 // bits)
    columns: list[NDArray[Any]] = []
    for begin, end in [(0, in_first), (in_first, order)][: 1 + (order > in_first)]:
        key: NDArray[Any] = np.zeros(length, np.int64 if bits * (end - begin) > 31 else np.int32)
        for place in range(begin, end):
            key <<= bits
            key |= ids[place : place + length]
        columns.append(key)
    return columns


class CountWays:
    """The ways to count one order of some ids; each returns what it has found."""

    def __init__(self, ids: NDArray[np.int32], size: int, order: int, folder: Path) -> None:
        self.ids, self.size, self.order, self.folder = ids, size, order, folder
        names = ("",) * size
        self._vocab = CanonicalVocab(names, names, np.arange(size, dtype=np.int32), names, IDENTITY.name)
        self._connection: Any = None  # to duckdb, once it is used
        self._slots = len(ids) + len(ids) // DOCUMENT_TOKENS + 1  # with a place between documents

    def all(self) -> dict[str, Callable[[], object]]:
        ways = {"engram": self.engram, "engram_file": self.engram_file, "numpy": self.numpy}
        return ways | ({"duckdb": self.duckdb, "duckdb_file": self.duckdb_file} if find_spec("duckdb") else {})

    def path(self, way: str) -> Path:
        return self.folder / f"{way}-{self.order}.parquet"

    def engram(self) -> int:
        """The number of distinct n-grams."""
        buffer = Buffer(self._slots, LONGEST_DOCUMENT, Packing(self.order, self.size))
        for first in range(0, len(self.ids), DOCUMENT_TOKENS):
            buffer.append(self.ids[first : first + DOCUMENT_TOKENS], self._vocab, begins=True)
        windows = window_count(len(self.ids), WINDOW_TOKENS)
        return sum(size for part in buffer.stretches(windows) for size in buffer.runs(part, self.order, windows, len))

    def engram_file(self) -> object:
        self.path("engram_file").unlink(missing_ok=True)
        with NgramCounter(self._vocab, (self.order,), self._slots, self.folder) as counter:
            for first in range(0, len(self.ids), DOCUMENT_TOKENS):
                counter.add(self.ids[first : first + DOCUMENT_TOKENS])
            return counter.write(self.path("engram_file"))

    def numpy(self) -> NDArray[np.int64]:
        """Counts by sorting in place; of two columns, the first is replaced by its rank, so that both fit one."""
        key, *second = packed_keys(self.ids, self.order, self.size)
        if second:
            rank = np.unique(key, return_inverse=True)[1].astype(np.int64)
            key = (rank << (8 * second[0].itemsize)) | second[0]
        key.sort()
        edges = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1], [True]]))
        return np.diff(edges)

    def duckdb(self) -> object:
        return self._duckdb(lambda query: query.to_arrow_table())

    def duckdb_file(self) -> object:
        self.path("duckdb_file").unlink(missing_ok=True)
        return self._duckdb(
            lambda query: query.query(
                "counts",
                f"COPY counts TO '{self.path('duckdb_file')}' (FORMAT parquet, COMPRESSION lz4_raw)",
            )
        )

    def _duckdb(self, take: Callable[[Any], object]) -> object:
        import duckdb

        if self._connection is None:
            self._connection = duckdb.connect(config={"threads": CORES, "preserve_insertion_order": False})
        columns = packed_keys(self.ids, self.order, self.size)
        keys = ", ".join(f"key_{i}" for i in range(len(columns)))
        self._connection.register("ngrams", pa.table({f"key_{i}": column for i, column in enumerate(columns)}))
        found = take(self._connection.sql(f"SELECT {keys}, count(*) AS count FROM ngrams GROUP BY {keys}"))
        self._connection.unregister("ngrams")
        return found


def measure(ids: NDArray[np.int32], size: int, order: int, folder: Path, rounds: int = ROUNDS) -> CountSpeed:
    """Times every way to count canonical ids below `size`; files are written into `folder`."""
    ways = CountWays(ids, size, order, folder)
    sec = {way: median(times) for way, times in time_in_turn(ways.all(), rounds).items()}
    file_bytes = {way: ways.path(way).stat().st_size for way in sec if ways.path(way).exists()}
    return CountSpeed(order, len(ids), ways.engram(), sec, file_bytes)


def peak_bytes(way: str, ids: NDArray[np.int32], size: int, order: int, folder: Path) -> int:
    """By how much one way's memory grows, in a process of its own that has its modules loaded and the ids made."""
    np.save(folder / "ids.npy", ids)
    command = [sys.executable, "-m", "engram_cli.bench.count_memory", way, str(size), str(order), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout))
