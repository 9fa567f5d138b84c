"""Shares: a corpus counted in parts by several processes, on this machine or on many, and the counts added up.

A share is every n-th document, whatever file it is in: all workers read the whole corpus, and each encodes and counts its own
documents, which takes many times as long. So one large file is shared out like many small ones, and nothing has to be known of
the corpus beforehand. The sum is the same file of counts, to the byte, as one process writes.
"""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hashing.base.atomic import atomic_path
from hashing.base.cores import part_of_cores, run_on
from hashing.base.errors import EngramError
from hashing.ngrams.counter import NothingToCountError, count_pieces
from hashing.ngrams.counts import Totals
from hashing.ngrams.counts_writer import write_merged
from hashing.ngrams.scratch import Scratch
from hashing.ngrams.source import Source
from hashing.text.token_stream import TokenStream
from hashing.vocab import CanonicalVocab

LOOK_SEC = 0.1  # between two looks at how far the workers are
TOLD = (EngramError, OSError, MemoryError)  # what is wrong with the data or the world; all else is a bug, and has a traceback
LEFT_TO_PARENT = {signal.SIGINT, signal.SIGTERM}


def count_share(
    share: TokenStream,
    vocab: CanonicalVocab,
    orders: Sequence[int],
    memory_bytes: int,
    path: Path,
    read: Callable[[int], None] = lambda _: None,
) -> Path | None:
    """Counts one of `TokenStream.shares` into a file for `merge_counts`, on all cores and within the memory.

    None, and no file, where the share has no token, as one of many shares of a few documents.
    """
    try:
        count_pieces(share.pieces(read), vocab, orders, memory_bytes, path)
    except NothingToCountError:
        return None
    return path


def count_in_processes(
    stream: TokenStream,
    vocab: CanonicalVocab,
    orders: Sequence[int],
    memory_bytes: int,
    path: Path,
    workers: int,
    source: Callable[[], Source],
    read: Callable[[int], None] = lambda _: None,
) -> Totals:
    """Counts a share in each of so many processes, which share the memory, and writes the sum.

    `source` is asked before and after. Raises EngramError when the corpus changed in between, when a process was killed, and
    for whatever is wrong in one of them. No process and no file outlives the call, however it ends; where this process is
    killed, the others end by themselves, and the next count removes what they had written.
    """
    with atomic_path(path, flushed=False) as partial, Scratch(path.parent) as scratch:
        before = source()
        parts = [scratch.path(f"{number}.parquet") for number in range(workers)]
        jobs = [
            (share, vocab, orders, memory_bytes // workers, part)
            for share, part in zip(stream.shares(workers), parts, strict=True)
        ]
        with _started(jobs) as (started, done_bytes):
            _wait_for(started, done_bytes, stream, read)
        if difference := before.difference(source()):
            raise EngramError(
                f"the corpus changed while it was counted {difference}", hint="count a copy that nothing writes to"
            )
        if not (counted := [part for part in parts if part.exists()]):
            raise NothingToCountError("there is nothing to count: the corpus has no tokens", hint="name one that has text")
        return write_merged(counted, partial, scratch, before)


@dataclass(frozen=True, slots=True)
class Worker:
    process: BaseProcess
    said: Connection  # the one thing that it says: what its share came to, or what went wrong

    def result(self) -> Any:
        """What it said. Raises what went wrong, and EngramError when it was killed before it said anything."""
        try:
            found = self.said.recv()
        except EOFError as e:
            self.process.join()
            code = self.process.exitcode or 0
            if code >= 0:
                raise RuntimeError("a process that counted failed; its traceback is above") from e
            raise EngramError(
                f"a process that counted a share was ended by {signal.Signals(-code).name}; nothing was written",
                hint="where memory ran out, fewer --workers or less --memory need less; the same command counts again",
            ) from e
        if isinstance(found, Exception):
            raise found
        return found


@contextmanager
def _started(jobs: Sequence[tuple[Any, ...]]) -> Iterator[tuple[list[Worker], Any]]:
    """A process for each job, and how many bytes each has read; at the end of the block whichever still runs is killed.

    Each starts threads for its part of the cores. A Ctrl-C, and a SIGTERM to all of them, is this process's to act on.
    """
    context = get_context("spawn")
    done_bytes: Any = context.RawArray("q", len(jobs))
    started: list[Worker] = []
    resource_tracker.ensure_running()  # here, because it lets through the signals that are held back below
    try:
        for number, job in enumerate(jobs):
            said, saying = context.Pipe(duplex=False)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
            try:
                with part_of_cores(number, len(jobs)) as cores:
                    process = context.Process(target=_work, args=(cores, *job, number, done_bytes, saying))
                    process.start()
                started.append(Worker(process, said))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                saying.close()
        yield started, done_bytes
    finally:
        for worker in started:
            worker.process.kill()
        for worker in started:
            worker.process.join()
            worker.said.close()


def _work(
    cores: frozenset[int],
    share: TokenStream,
    vocab: CanonicalVocab,
    orders: Sequence[int],
    memory_bytes: int,
    path: Path,
    number: int,
    done_bytes: Any,
    saying: Connection,
) -> None:
    """What a worker does: counts its share, and says what reading came to."""
    run_on(cores)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tempfile.tempdir = str(path.parent)  # so that nothing of a worker that is killed stays anywhere else

    def read(size: int) -> None:
        done_bytes[number] += size

    try:
        count_share(share, vocab, orders, memory_bytes, path, read)
    except TOLD as e:
        saying.send(e)
    else:
        saying.send(share.text.reading if share.text else None)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _wait_for(started: Sequence[Worker], done_bytes: Any, stream: TokenStream, read: Callable[[int], None]) -> None:
    """Until all have counted; the first thing that is wrong with one of them is raised."""
    told = 0
    waiting = {worker.said: worker for worker in started}
    while waiting:
        for said in wait(list(waiting), LOOK_SEC):
            assert isinstance(said, Connection)
            reading = waiting.pop(said).result()
            if stream.text:
                stream.text.reading.take(reading)
        read((now := sum(done_bytes) // len(started)) - told)
        told = now
