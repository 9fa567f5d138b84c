"""How many threads decode.

A decoding step of a small model is hundreds of operations of microseconds. Several threads gain little on those, and lose much
as soon as other work runs beside them: after every operation all wait for the one that was not given a processor.
"""

from collections.abc import Callable
from time import perf_counter

import torch

STEPS = 8  # timed with each number of threads
WORTHWHILE = 1.3  # times faster than one thread, for being at the mercy of other work


def choose_threads(step: Callable[[], object]) -> None:
    """Sets torch to one thread unless a step is clearly faster with all of them; takes the time of two dozen steps."""
    every = torch.get_num_threads()
    together = _step_sec(step)
    torch.set_num_threads(1)
    if _step_sec(step) > WORTHWHILE * together:
        torch.set_num_threads(every)


def _step_sec(step: Callable[[], object]) -> float:
    """Seconds of a step, the least of several."""
    step()
    least = float("inf")
    for _ in range(STEPS):
        began = perf_counter()
        step()
        least = min(least, perf_counter() - began)
    return least
