"""How many pages a drive reads in a second, from random places, many asked for at a time."""

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import perf_counter

import numpy as np

from engram_cli.output import progress
from hashing.base.errors import EngramError

FILE_BYTES = 1 << 30
BLOCK = 1 << 24
READERS = 32  # threads: more gain nothing on the drives that were tried
PAGES = 1 << 15


def pages_per_sec(folder: Path, file_bytes: int = FILE_BYTES) -> float:
    """Writes a file of `file_bytes` into the folder, reads pages of it that are not in memory, and removes it.

    Raises EngramError where that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix="drive-") as file:
            block = np.random.default_rng(0).bytes(min(BLOCK, file_bytes))
            with progress("MiB") as bar:
                for _ in bar.track(range(-(-file_bytes // len(block))), description="writing a file to read"):
                    file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return _read(file.fileno(), file_bytes)
    except OSError as e:
        raise EngramError(
            f"cannot measure the drive of {folder}: {e.strerror}", hint="--drive names a folder on another"
        ) from e


def _read(descriptor: int, file_bytes: int) -> float:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    pages = np.random.default_rng(1).permutation(file_bytes // mmap.PAGESIZE)[:PAGES]

    def some(first: int) -> int:
        return sum(len(os.pread(descriptor, mmap.PAGESIZE, int(page) * mmap.PAGESIZE)) for page in pages[first::READERS])

    with ThreadPoolExecutor(READERS) as threads:
        began = perf_counter()
        list(threads.map(some, range(READERS)))
        return len(pages) / (perf_counter() - began)
