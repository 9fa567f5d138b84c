"""Helper: a second core for steps that continue many texts.

A step is Python, on one core, between functions of some ten microseconds. To wake a sleeping thread takes longer than those.
So the helper's thread looks for work without the interpreter's lock while such steps follow one another, offers its core to
others every ten microseconds, and sleeps when it has found no work for a while. Whoever computes never waits for it to begin
(`helper_kernel.py`), and what it computes is the same to the bit: rows do not depend on each other.
"""

import mmap
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from hashing.base.cores import CORES
from runtime.model.helper_kernel import HAS_YIELD, ON_X86, help_with

FEWEST = 12  # texts that are worth it
PATIENCE = 1_000_000  # looks for work in vain, some hundredths of a second, before it sleeps
NOBODY = 0

_this = threading.local()


class Helper:
    def __init__(self) -> None:
        self._words = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64)  # a page apart from what else changes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="helper")
        self._turn = threading.Lock()
        self._work: Future[None] | None = None

    @contextmanager
    def helping(self, texts: int) -> Iterator[None]:
        """Within the block, what this thread computes for so many texts is shared, if that is worth it.

        One thread at a time is helped.
        """
        if texts < FEWEST or not _is_possible() or not self._turn.acquire(blocking=False):
            yield
            return
        try:
            if self._work is None or self._work.done():
                self._work = self._thread.submit(self._help)
            _this.words = self._words.ctypes.data
            yield
        finally:
            _this.words = NOBODY
            self._turn.release()

    def get_ready(self) -> None:
        """Compiles what helping takes, before anybody waits for it."""
        if _is_possible():
            help_with(self._words.ctypes.data, 0)

    def _help(self) -> None:
        """In the thread, which by this keeps the words for as long as it looks at them."""
        help_with(self._words.ctypes.data, PATIENCE)


def _is_possible() -> bool:
    """Whether there is a core for it, which torch's own threads do not use."""
    return CORES > 1 and ON_X86 and HAS_YIELD and torch.get_num_threads() == 1


def offered() -> int:
    """The address at which this thread offers rows; NOBODY where nobody helps."""
    words: int = getattr(_this, "words", NOBODY)
    return words


HELPER = Helper()
