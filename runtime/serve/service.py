"""Service: an engine at work in a thread of its own, for handlers that run in an event loop.

Completions join and leave between steps. What a step adds is handed out, and taken, before the next one begins, so that the
thread and the loop do not fight for Python's lock.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from time import perf_counter

from hashing.base.errors import EngramError
from runtime.serve.completion import Completion, Piece
from runtime.serve.engine import Engine

MOST_WAITING = 256
LONGEST_SEC = 600.0  # that a completion may take, its time in the queue included

Handed = tuple[Completion, Piece]
Queue = asyncio.Queue[Handed | EngramError]


class BusyError(Exception):
    """More completions wait than may."""


class Service:
    def __init__(self, engine: Engine, most_waiting: int = MOST_WAITING, longest_sec: float = LONGEST_SEC) -> None:
        self.engine, self._most_waiting, self._longest_sec = engine, most_waiting, longest_sec
        self._queues: dict[Completion, Queue] = {}  # of completions that are unfinished and wanted
        self._until: dict[Completion, float] = {}  # when each of these must be finished, the earliest first
        self._joining: list[Completion] = []
        self._leaving: list[Completion] = []
        self._wake = asyncio.Event()
        self.failure: str | None = None  # what a step has failed for: tables that were wrong once are not trusted again

    @property
    def waiting(self) -> int:
        return len(self._joining) + len(self.engine.scheduler.waiting)

    def check_room(self, completions: int) -> None:
        """Raises BusyError when so many more cannot wait."""
        if self.waiting + completions > self._most_waiting:
            raise BusyError

    @asynccontextmanager
    async def joined(self, completions: Sequence[Completion]) -> AsyncIterator[AsyncIterator[list[Handed]]]:
        """What steps add to the completions, until they are finished; those that are not at the block's end are dropped.

        Raises EngramError within the block when a step fails.
        """
        queue: Queue = asyncio.Queue()
        self._queues |= dict.fromkeys(completions, queue)
        self._until |= dict.fromkeys(completions, perf_counter() + self._longest_sec)
        self._joining += completions
        self._wake.set()
        try:
            yield _handed(queue, len(completions))
        finally:
            self._leaving += [completion for completion in completions if self._queues.pop(completion, None)]
            for completion in completions:
                self._until.pop(completion, None)
            self._wake.set()

    async def run(self) -> None:
        """Takes steps as long as there is anything to continue."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="engine") as thread:
            while True:
                self._end_overdue()
                self._admit()
                if self.engine.is_idle:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                try:
                    self._hand_out(await loop.run_in_executor(thread, self.engine.step))
                except EngramError as e:
                    self._fail(e)
                await asyncio.sleep(0)  # those who wait for a piece take it now

    def _end_overdue(self) -> None:
        """Tells those that wait for a completion whose time is over; they leave then."""
        while self._until and next(iter(self._until.values())) < perf_counter():
            completion = next(iter(self._until))
            del self._until[completion]
            if queue := self._queues.get(completion):
                queue.put_nowait(EngramError(f"a completion may take {self._longest_sec:g} seconds, and these are over"))

    def _admit(self) -> None:
        leaving = set(self._leaving)
        for completion in self._joining:
            if completion not in leaving:
                self.engine.add(completion)
        for completion in leaving.difference(self._joining):
            self.engine.cancel(completion)
        self._joining, self._leaving = [], []

    def _hand_out(self, found: Sequence[Handed]) -> None:
        for completion, piece in found:
            queue = self._queues.pop(completion, None) if piece.finish_reason else self._queues.get(completion)
            if queue is not None:
                queue.put_nowait((completion, piece))
            if piece.finish_reason and completion in self._leaving:
                self._leaving.remove(completion)

    def _fail(self, error: EngramError) -> None:
        """Ends all that go on, since a step that failed has left each of them anywhere."""
        self.failure = str(error)
        self.engine.drop_all()
        for queue in {id(queue): queue for queue in self._queues.values()}.values():
            queue.put_nowait(error)
        self._leaving = []
        self._queues = {completion: self._queues[completion] for completion in self._joining if completion in self._queues}


async def _handed(queue: Queue, unfinished: int) -> AsyncIterator[list[Handed]]:
    """All that is in the queue at a time, until so many completions are finished."""
    while unfinished:
        taken = [await queue.get()]
        while not queue.empty():
            taken.append(queue.get_nowait())
        handed = []
        for item in taken:
            if isinstance(item, EngramError):
                raise item
            handed.append(item)
        unfinished -= sum(piece.finish_reason is not None for _, piece in handed)
        yield handed
