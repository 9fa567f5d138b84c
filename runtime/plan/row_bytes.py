"""What rows take: bytes of their state in training, and the bandwidth that each placement needs for reading and training them.

Decoding reads the rows of every token. `device` reads them from the device's memory as float32; `host` moves them to the device
as float32; `disk` reads pages of the drive, at least one for a row, as if none were in memory.

Training reads and writes rows with the state of their rule, all in float32, as if a batch read no row twice, which is the most
that it can take. `device` does both in its memory; `host` moves rows to the device and their gradients back; `disk` reads and
writes pages, in which a row and its state stand side by side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from runtime.config import RowRule
from runtime.plan.shape import MemoryShape

NUMBER_BYTES = 4  # float32, in which is trained and computed
PAGE_BYTES = 4096
ROW_RULES: tuple[RowRule, ...] = get_args(RowRule)


@dataclass(frozen=True, slots=True)
class Flow:
    """Through the narrowest place: the device's memory, the link between host and device, or the drive."""

    read_bytes_per_sec: float
    written_bytes_per_sec: float


def row_state_bytes(rule: RowRule, head_dim: int, momentum: float | None = None) -> int:
    """What a rule keeps of a row of `head_dim` numbers beside the row; without `momentum`, with the rule's own."""
    moment = 0 if momentum == 0 else head_dim + (rule == "sinkhorn")  # which keeps the number of the row's last step too
    square = {"adam": head_dim, "rowwise_adam": 1, "sinkhorn": 0}[rule]
    return NUMBER_BYTES * (moment + square + 1)  # and how often the row was moved


def decoding(memory: MemoryShape, row_bytes: int, tokens_per_sec: float) -> Mapping[str, Flow]:
    """By placement, for rows stored in `row_bytes`."""
    rows = memory.rows_per_token * tokens_per_sec
    vectors = rows * NUMBER_BYTES * memory.head_dim
    return {"device": Flow(vectors, 0), "host": Flow(vectors, 0), "disk": Flow(rows * _pages(row_bytes), 0)}


def training(memory: MemoryShape, rule: RowRule, tokens_per_sec: float) -> Mapping[str, Flow]:
    """By placement."""
    rows = memory.rows_per_token * tokens_per_sec
    own = NUMBER_BYTES * memory.head_dim
    state = own + row_state_bytes(rule, memory.head_dim)
    return {
        "device": Flow(rows * state, rows * state),
        "host": Flow(rows * own, rows * own),
        "disk": Flow(rows * _pages(state), rows * _pages(state)),
    }


def _pages(size_bytes: int) -> int:
    """Bytes of the pages that hold so many."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
