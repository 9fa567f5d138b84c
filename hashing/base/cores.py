"""How many cores this process may run on, counted once: asking the system takes longer than hashing a token.

The count honours the process's affinity (`taskset`, a container's cpuset) as it stands when the module is first imported.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CORES: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def part_of_cores(index: int, of: int) -> Iterator[None]:
    """Within the block, a process that is started may run on one of so many parts of the cores, and counts only those.

    More parts than cores are one core each. Where the system has no affinity, every process counts all cores.
    """
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    os.sched_setaffinity(0, cores[index % len(cores) :: of])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
