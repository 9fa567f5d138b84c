"""Arm: one of the configurations that a sweep compares, and what stays the same between them.

A parameter count here is that of an arm's own tables and matrices; FLOPs are those of matrix products, two for each
multiply-add. Elementwise work and the convolution's few taps are left out of both, as they are of the Transformer's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from hashing.base.errors import UsageError
from runtime.settings import MemorySettings, Settings
from runtime.train.choice import changed, set_change


@dataclass(frozen=True, slots=True)
class Arm:
    name: str  # also of its folder
    settings: Settings
    rule: str = "engram"  # of the canonical vocabulary, or "identity"
    equal_time: bool = False  # as many more steps as fit into the time of the sweep's first arm

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[a-z0-9.+-]+", self.name), self.name


def arm(name: str, base: Settings, *sets: str, rule: str = "engram", equal_time: bool = False) -> Arm:
    """The base with settings changed, given as `--set` takes them."""
    return Arm(name, changed(base, [set_change(sets)]), rule, equal_time)


def memory_of(base: Settings) -> MemorySettings:
    """Raises UsageError for settings without memory: a sweep compares with it."""
    if base.memory is None:
        raise UsageError("the settings leave the memory out, and a sweep is about it", hint='leave out memory = "none"')
    return base.memory


def columns(memory: MemorySettings) -> int:
    """Rows that a position reads in each layer."""
    return len(memory.orders) * memory.heads


def projection_parameters(base: Settings) -> int:
    """Of the memory's projections in all layers; a token passes each number once."""
    memory = memory_of(base)
    width = columns(memory) * memory.head_dim
    return len(memory.layers) * width * (base.model.streams + 1) * base.model.hidden


def table_parameters(base: Settings) -> int:
    """Of all tables, but for what the next primes are above `rows_per_head`."""
    memory = memory_of(base)
    return len(memory.layers) * columns(memory) * memory.rows_per_head * memory.head_dim


def wider_ffn(base: Settings) -> Sequence[str]:
    """No memory, and feed-forward networks wider by as many multiply-adds as the memory's projections take."""
    added = round(projection_parameters(base) / (3 * base.model.hidden * base.model.blocks))
    return "memory=none", f"model.ffn={base.model.ffn + added}"


def experts_for_tables(base: Settings) -> Sequence[str]:
    """No memory, and in each block experts with as many parameters as its share of tables, at the FLOPs of `wider_ffn`.

    In units of 3 · hidden numbers, A is the inner width of `wider_ffn` and P a block's share of the tables. Of n routed experts
    of inner width f a token reads 2, beside a shared one and the n rows of the router: 3f + n/3 = A is the FLOPs, and
    (n + 1)f + n/3 = A + P the parameters. So n² − (3A + 2)n + 6A + 9P = 0. Where the tables are larger than any n allows, it is
    the n with the most parameters.
    """
    unit = 3 * base.model.hidden
    width = base.model.ffn + projection_parameters(base) / (unit * base.model.blocks)  # A
    needed = table_parameters(base) / (unit * base.model.blocks)  # P
    linear = 3 * width + 2
    count = round((linear - sqrt(max(0.0, linear**2 - 4 * (6 * width + 9 * needed)))) / 2)
    inner = round((width - count / 3) / 3)
    shape = {"experts": count, "expert_ffn": inner, "experts_per_token": 2, "shared_experts": 1, "dense_blocks": 0}
    return "memory=none", *(f"model.{name}={value}" for name, value in shape.items())


def allocated(base: Settings, percent: int) -> Sequence[str]:
    """Experts get a percentage of the sparse parameters and rows the others, at the same total and the same FLOPs.

    Sparse parameters are those of the routed experts that a token does not read, with a router's row for each, when they get
    all of them. What the memory's projections cost is then added to the dense blocks.
    """
    model, memory = base.model, memory_of(base)
    each = 3 * model.expert_ffn * model.hidden + model.hidden  # of an expert
    blocks, unread = model.blocks - model.dense_blocks, model.experts - model.experts_per_token
    count = model.experts_per_token + round(unread * percent / 100)
    if percent == 100:
        added = round(projection_parameters(base) / (3 * model.hidden * model.dense_blocks))
        return "memory=none", f"model.ffn={model.ffn + added}"
    for_rows = blocks * (model.experts - count) * each
    rows = round(for_rows / (len(memory.layers) * columns(memory) * memory.head_dim))
    return f"model.experts={count}", f"memory.rows_per_head={max(2, rows)}"
