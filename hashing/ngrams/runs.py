"""Runs: the sorted distinct n-grams of one order with their counts, in memory or on disk, and how runs are added up.

A run on disk is a file for each field, without a header: it lives no longer than the count that wrote it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashing.ngrams import partition_kernel as kernel

Fields = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[Any], NDArray[Any]]  # mixed, rest, count, documents


@dataclass(frozen=True, slots=True)
class Run:
    """The distinct n-grams of neighbouring partitions, sorted within each."""

    bounds: NDArray[np.int64]  # (partitions + 1,) where each partition begins
    fields: Fields  # the rest is empty for n-grams that fit one word

    def __len__(self) -> int:
        return len(self.fields[0])


@dataclass(frozen=True, slots=True)
class DiskRun:
    """The distinct n-grams of all partitions, in files."""

    path: Path  # of the files, less their endings
    bounds: NDArray[np.int64]  # (PARTITIONS + 1,)
    kinds: tuple[np.dtype[Any], ...]  # of the fields

    @classmethod
    def write(cls, path: Path, windows: Iterable[Run]) -> "DiskRun":
        """Writes the runs of neighbouring partitions, which together are all of them, one after the other."""
        sizes: list[NDArray[np.int64]] = []

        def fields() -> Iterator[Fields]:
            for run in windows:
                sizes.append(np.diff(run.bounds))
                yield run.fields

        kinds = _write_fields(path, fields())
        return cls(path, np.concatenate([[0], np.cumsum(np.concatenate(sizes))]), kinds)

    @classmethod
    def write_sorted(cls, path: Path, pieces: Iterable[tuple[NDArray[np.uint64], Fields]]) -> "DiskRun":
        """Writes n-grams that are sorted already, with the partition of each; pieces may end anywhere."""
        sizes = np.zeros(kernel.PARTITIONS, np.int64)

        def fields() -> Iterator[Fields]:
            for partitions, found in pieces:
                sizes[:] += np.bincount(partitions.astype(np.int64), minlength=kernel.PARTITIONS)
                yield found

        kinds = _write_fields(path, fields())
        return cls(path, np.concatenate([[0], np.cumsum(sizes)]), kinds)

    def part(self, first: int, last: int) -> Run:
        """The run of partitions first..last."""
        begin, size = int(self.bounds[first]), int(self.bounds[last] - self.bounds[first])
        mixed, rest, count, documents = (
            np.fromfile(_field_path(self.path, field), kind, size, offset=begin * kind.itemsize)
            for field, kind in enumerate(self.kinds)
        )
        return Run(self.bounds[first : last + 1] - begin, (mixed, rest, count, documents))


def _write_fields(path: Path, pieces: Iterable[Fields]) -> tuple[np.dtype[Any], ...]:
    """Writes each field of the pieces to a file, and returns the fields' types."""
    kinds: tuple[np.dtype[Any], ...] = ()
    with ExitStack() as opened:
        files = [opened.enter_context(_field_path(path, field).open("wb")) for field in range(4)]
        for fields in pieces:
            for file, values in zip(files, fields, strict=True):
                values.tofile(file)
            kinds = tuple(values.dtype for values in fields)
    return kinds


def _field_path(path: Path, field: int) -> Path:
    return path.with_name(f"{path.name}.{field}")


def merged(left: Run, right: Run) -> Run:
    """The sum of two runs of the same partitions and order."""
    size, wide_size = (len(left.fields[i]) + len(right.fields[i]) for i in (0, 1))
    bounds = np.zeros_like(left.bounds)
    counts = np.empty((2, size), np.int64)
    out = (np.empty(size, np.uint64), np.empty(wide_size, np.uint64), *counts)
    kernel.merge(left.bounds, left.fields, right.bounds, right.fields, bounds, out)
    mixed, rest, count, documents = (field[: bounds[-1]] for field in out)
    return Run(bounds, (mixed, rest, count, documents))


def window_count(tokens: int, window_tokens: int) -> int:
    """How many windows the n-grams of so many tokens are held and written in: a power of two, so that partitions divide evenly.

    It depends on nothing else, so that counts of one corpus are the same file however they came about.
    """
    return min(kernel.PARTITIONS, 1 << ((tokens - 1) // window_tokens).bit_length())


def window_edges(windows: int) -> list[int]:
    """(windows + 1,) The partitions at which windows, so many of equal width, begin and end."""
    return [kernel.PARTITIONS * i // windows for i in range(windows + 1)]


def merged_windows(sources: Sequence[DiskRun], windows: int) -> Iterator[Run]:
    """The sum of the sources, window by window, so that few n-grams are held at a time."""
    for first, last in pairwise(window_edges(windows)):
        yield reduce(merged, (source.part(first, last) for source in sources))
