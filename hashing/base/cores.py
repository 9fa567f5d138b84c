"""How many cores this process may run on, counted once: asking the system takes longer than hashing a token.

The count honours the process's affinity (`taskset`, a container's cpuset) and a container's share of time (`docker run --cpus`)
as they stand when the module is first imported.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def whole_cores(share: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many cores there are, and no more than the time of so many that a control group of Linux may take; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = share.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # there is no such file, or it says `max`
        return cores


CORES: int = whole_cores()


@contextmanager
def part_of_cores(index: int, of: int) -> Iterator[frozenset[int]]:
    """Within the block, a process that is started counts only one of so many parts of the cores as its own.

    More parts than cores are one core each. Yields all cores, on which the process can `run_on` once it has counted: where it
    starts threads for its part, the system may still put them where there is time. Where a system cannot hold a process to
    cores, every process counts all of them.
    """
    if sys.platform != "linux":
        yield frozenset()
        return
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[index % len(cores) :: of])
    try:
        yield frozenset(cores)
    finally:
        os.sched_setaffinity(0, cores)


def run_on(cores: frozenset[int]) -> None:
    """Lets this process run on the cores; `CORES` stays what it was."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, cores)
