"""A record file: all that a training keeps of each row of a layer, side by side, so that a row is one place on the drive.

    rows/<block>.rows    a record for each row, float32 (int32 where the rule says so), little-endian: its weight, then what the
                         rule keeps of it, in the order of the rule's names. A record whose `updates` is 0 is of a row that was
                         never moved: its weight is the new row of its number, whatever stands there

The file is as long as the table and sparse: blocks without a row that was moved cost nothing. Records are read and written by
calls and not mapped: a mapping would count as the process's memory, and on a full drive would end the process without a word.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from errno import EIO
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashing.base.errors import EngramError
from runtime.config import RowRule
from runtime.train.new_rows import NewRows
from runtime.train.record_kernel import transfer
from runtime.train.row_rules import Gradients, Rule, new_rule

READERS = 16  # at once, so that the drive has as many rows to find as it likes; none computes
WRITERS = 2
FILLED_ROWS = 1 << 12  # that are read at once where all are
SUFFIX = ".rows"

Records = NDArray[np.float32]  # (N, width)


class RecordFile:
    """The records of a layer's table, of so many rows of `head_dim` numbers; new where there is no file.

    Raises EngramError where there is one of another size.
    """

    def __init__(self, path: Path, rows: int, head_dim: int, new_rows: NewRows, rule: RowRule, momentum: float | None) -> None:
        self.path, self.rows, self.head_dim = path, rows, head_dim
        self._new_rows, self._rule = new_rows, (rule, momentum)
        state = self._new_rule(torch.empty(0, head_dim)).state()
        widths = {"weight": head_dim, **{name: _row_numbers(tensor) for name, tensor in state.items()}}
        ends = np.cumsum([*widths.values()])
        self._columns = {
            name: slice(int(end) - width, int(end)) for (name, width), end in zip(widths.items(), ends, strict=True)
        }
        self.width = int(ends[-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        self.is_fresh = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if self.is_fresh:
            os.ftruncate(self._descriptor, rows * self.width * 4)
        elif (found := path.stat().st_size) != rows * self.width * 4:
            raise EngramError(f"{path} has {found:,} bytes, expected {rows * self.width * 4:,}: it is of another training")

    def __del__(self) -> None:
        os.close(self._descriptor)

    def _new_rule(self, weight: Tensor) -> Rule:
        return new_rule(weight, *self._rule)

    def read(self, rows: NDArray[np.int64]) -> Records:
        """The records of rows (N,), with the weights of new rows in place."""
        records = np.empty((len(rows), self.width), np.float32)
        self._in_parts(_readers(), rows, records, writes=False)
        return self._with_new_rows(rows, records)

    def _with_new_rows(self, rows: NDArray[np.int64], records: Records) -> Records:
        is_new = np.flatnonzero(self.is_new(records))
        drawn = np.empty((len(is_new), self.head_dim), np.float32)
        self._new_rows.fill(rows[is_new], drawn)
        records[is_new, : self.head_dim] = drawn
        return records

    def write(self, rows: NDArray[np.int64], records: Records) -> None:
        """Raises OSError when the drive does not take them; some may be written then."""
        self._in_parts(_writers(), rows, records, writes=True)

    def fill(self, first: int, out: NDArray[np.uint8]) -> None:
        """Sets vectors (N, 4·head_dim) to the weights of the rows from `first` on, which are read one after another."""
        vectors = out.view("<f4")
        for begin in range(0, len(out), FILLED_ROWS):
            rows = np.arange(first + begin, first + min(begin + FILLED_ROWS, len(out)))
            whole = os.pread(self._descriptor, len(rows) * self.width * 4, int(rows[0]) * self.width * 4)
            records = np.frombuffer(whole, np.float32).reshape(-1, self.width).copy()
            vectors[begin : begin + len(rows)] = self._with_new_rows(rows, records)[:, : self.head_dim]

    def is_new(self, records: Records) -> NDArray[np.bool_]:
        """(N,) Whether a record is of a row that was never moved."""
        new: NDArray[np.bool_] = records[:, self._columns["updates"].start] == 0
        return new

    def move(self, records: Records, gradients: Tensor, rate: float, step: int) -> None:
        """A step of the rule on the rows of records, in place, by gradients (N, head_dim), which it may overwrite."""
        parts = {name: torch.from_numpy(np.ascontiguousarray(records[:, own])) for name, own in self._columns.items()}
        weight = parts["weight"]
        rule = self._new_rule(weight)
        for name, kept in rule.state().items():
            kept.copy_(parts[name].view(kept.dtype).view(kept.shape))
        rule.step(weight, Gradients(torch.arange(len(weight)), weight.clone(), gradients, step), rate)
        for name, kept in {"weight": weight, **rule.state()}.items():
            records[:, self._columns[name]] = kept.view(len(weight), -1).view(torch.float32).numpy()

    def sync(self) -> None:
        """Waits until the drive has all that was written."""
        os.fsync(self._descriptor)

    def _in_parts(self, threads: ThreadPoolExecutor, rows: NDArray[np.int64], records: Records, writes: bool) -> None:
        """Reads or writes records in several threads. Raises OSError for the first that fails."""
        bounds = np.linspace(0, len(rows), threads._max_workers + 1).astype(int).tolist()
        parts = [slice(*pair) for pair in pairwise(bounds)]
        done = threads.map(lambda part: transfer(self._descriptor, rows[part], records[part], writes), parts)
        for part, number in zip(parts, done, strict=True):
            if (failed := part.start + number) < part.stop:  # once more, in Python, which says why
                offset, size = int(rows[failed]) * self.width * 4, self.width * 4
                record = records[failed].tobytes()
                count = os.pwrite(self._descriptor, record, offset) if writes else len(os.pread(self._descriptor, size, offset))
                raise OSError(EIO, f"{count} bytes of row {rows[failed]:,} instead of {size}", str(self.path))


def _row_numbers(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape[1:]))


@cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS, thread_name_prefix="read")


@cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
