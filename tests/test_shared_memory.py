"""A table that several processes read lies in memory once, but for the placement that copies it.

Each of two processes gathers every row of one store through each placement. What they hold then is read from the kernel while
both still hold it. Of pages of the store's files that are mapped, PSS, their proportional size, counts one that two share half
for each.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashing.spec import assign_primes
from table.store.store import TableStore, write_store
from tests.commands import ROOT
from tests.stores import spec_of_heads

HEAD_DIM = 64
CACHE_BYTES = 16 << 20
SLACK_BYTES = 24 << 20  # for rows on their way, and whatever else a process does
PLACEMENTS = ("mapped", "disk", "host")

READER = """
import gc, json, sys
from pathlib import Path

import numpy as np
import torch

from runtime.placement.placement import place
from table.store.store import TableStore


def used():
    # In bytes. Anonymous memory is the process's own; all else is of the store's files, as far as they are mapped.
    own = Path("/proc/self/smaps_rollup").read_text().split("Anonymous:")[1].split()[0]
    found = {"anonymous": int(own), "Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, size = line.partition(":")
        if "-" in name.split()[0]:  # a mapping begins
            ours = sys.argv[1] in line
        elif ours and name in found:
            found[name] += int(size.split()[0])
    return {name: 1024 * kib for name, kib in found.items()}


def waits():
    print(flush=True)
    sys.stdin.readline()


store, grown = TableStore.open(Path(sys.argv[1])), {}
numbers = np.arange(store.spec.rows(1) // 4 * 4).reshape(1, -1, 4)


def gathered(name, positions):
    placement = place({1: store.table(1)}, name, torch.device("cpu"), int(sys.argv[2]))
    for first in range(0, positions, 4096):
        placement.fetch({1: numbers[:, first : first + 4096]})(1)
    return placement


for name in sys.argv[3:]:
    gathered(name, 4096)  # loads what code it needs
    gc.collect()
    before = used()
    placement = gathered(name, numbers.shape[1])
    waits()
    grown[name] = {key: size - before[key] for key, size in used().items()}
    waits()
    del placement
    gc.collect()
print(json.dumps(grown))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    """256 MiB of rows."""
    rows = tuple(prime for order in assign_primes(1, 2, 2, 1 << 18)[0] for prime in order)
    values = np.random.default_rng(0).random((sum(rows), HEAD_DIM), np.float32)
    return write_store(tmp_path_factory.mktemp("store") / "t.zarr", spec_of_heads(rows), np.empty(0, np.int32), {1: values})


@pytest.fixture(scope="module")
def grown(store: TableStore) -> list[dict[str, Any]]:
    """By how many bytes each of two processes grew, by placement and name in smaps."""
    command = [sys.executable, "-c", READER, str(store.path), str(CACHE_BYTES), *PLACEMENTS]
    with ExitStack() as opened:
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        readers = [opened.enter_context(subprocess.Popen(command, env=environment, **streams)) for _ in range(2)]
        for reader in readers:
            opened.callback(reader.kill)
        for _ in range(2 * len(PLACEMENTS)):
            assert all(line == "\n" for line in _lines(readers))
            for reader in readers:
                assert reader.stdin
                reader.stdin.write("\n")
                reader.stdin.flush()
        return [json.loads(line) for line in _lines(readers)]


def _lines(readers: "list[subprocess.Popen[str]]") -> Iterator[str]:
    for reader in readers:
        assert reader.stdout
        yield reader.stdout.readline()


pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="what pages are shared is read from /proc")


def test_a_mapped_table_is_half_of_each(store: TableStore, grown: list[dict[str, Any]]) -> None:
    for process in grown:
        found = process["mapped"]
        assert found["Rss"] > 0.95 * store.total_bytes
        assert found["Pss"] == pytest.approx(found["Rss"] / 2, rel=0.05)
        assert found["Private_Clean"] + found["Private_Dirty"] < 0.05 * store.total_bytes
        assert found["anonymous"] < SLACK_BYTES


def test_of_a_table_on_disk_a_process_has_its_cache(store: TableStore, grown: list[dict[str, Any]]) -> None:
    """The rest is in the system's memory for files, which is no process's, and there once."""
    for process in grown:
        assert process["disk"]["anonymous"] < CACHE_BYTES + SLACK_BYTES < store.total_bytes / 4
        assert process["disk"]["Rss"] == 0


def test_a_table_in_main_memory_is_there_for_each(store: TableStore, grown: list[dict[str, Any]]) -> None:
    for process in grown:
        assert process["host"]["anonymous"] > 0.95 * store.total_bytes
