"""What to compute on, and in which numbers."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from time import perf_counter, thread_time
from typing import Any

import torch

from runtime.config import Precision

TRIED_SHAPE = (2048, 256, 768)  # of the product that is timed: positions, inputs, outputs
TRIALS = 9
WORTHWHILE = 1.2  # times faster than float32, for giving up its digits


def memory_bytes(device: torch.device) -> int:
    """All the memory of a device, whoever uses it now; that of a CPU is the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether a device, or the machine, had no memory for a tensor. For a CPU torch has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@cache
def fast_precision(device: torch.device) -> Precision:
    """What products are fastest in, by a measurement of a tenth of a second.

    Which units a processor has is not asked: torch tells of some of them only, and what they are worth depends on its kernels.
    """
    with _one_thread():
        seconds = _product_seconds(device)
    return "bfloat16" if seconds[torch.float32] > WORTHWHILE * seconds[torch.bfloat16] else "float32"


@torch.no_grad()
def _product_seconds(device: torch.device) -> dict[torch.dtype, float]:
    """The least time of a product in either precision, inputs being converted each time as under autocast.

    A CPU's is the time that it worked on the product, and they take turns, so that other work on the machine decides nothing: a
    model and its control, trained at different hours, would otherwise be computed in different numbers.
    """
    clock = thread_time if device.type == "cpu" else perf_counter
    positions, inputs, outputs = TRIED_SHAPE
    x, weight = torch.ones(positions, inputs, device=device), torch.ones(outputs, inputs, device=device)
    weights = {precision: weight.to(precision) for precision in (torch.float32, torch.bfloat16)}
    least = dict.fromkeys(weights, float("inf"))
    for _ in range(TRIALS):
        for precision, tried in weights.items():
            began = clock()
            float((x.to(precision) @ tried.T)[0, 0])  # reading a number waits for a GPU
            least[precision] = min(least[precision], clock() - began)
    return least


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within the block torch computes with one thread: where other work has the cores, several wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
