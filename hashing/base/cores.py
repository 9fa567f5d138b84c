"""How many cores this process may run on, counted once: asking the system takes longer than hashing a token.

The count honours the process's affinity (`taskset`, a container's cpuset) as it stands when the module is first imported.
"""

import os

CORES: int = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
