"""Service: an engine at work for handlers that run in an event loop.

Completions join and leave between steps. What a step adds is handed out, and taken, before the next one begins. Steps that are
over in a few milliseconds are taken by the loop itself: to hand one to a thread and back takes longer than what handlers do
meanwhile. Others are taken by a thread, so that the server answers while they last.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from math import inf
from time import perf_counter

from hashing.base.errors import EngramError
from runtime.serve.completion import Completion
from runtime.serve.engine import Engine
from runtime.serve.inbox import Handed, Inbox
from runtime.serve.metrics import TokenClock

MOST_WAITING = 256
# To write a token to a client takes longer than to compute it with a small model.
SENT_EVERY_SEC = 0.05  # at most, to one client
WRITTEN_EVERY_SEC = 0.005  # at most, to one of many
SELDOM_SEC = 0.2  # often enough, for any number of clients
SHORT_SEC = 0.01
PASS_SEC = 0.005  # between passes of the event loop in which nobody does anything
QUIET_SEC = 0.0001  # such a pass is shorter
PASSES = 3  # of the event loop, from the arrival of a request to where it joins
LONGEST_SEC = 600.0  # that a completion may take, its time in the queue included


class BusyError(Exception):
    """More completions wait than may."""


class Service:
    def __init__(self, engine: Engine, most_waiting: int = MOST_WAITING, longest_sec: float = LONGEST_SEC) -> None:
        self.engine, self._most_waiting, self._longest_sec = engine, most_waiting, longest_sec
        self._wanted: dict[Completion, tuple[Inbox, TokenClock]] = {}  # completions that are unfinished
        self._until: dict[Completion, float] = {}  # when each of these must be finished, the earliest first
        self._joining: list[Completion] = []
        self._leaving: list[Completion] = []
        self._wake = asyncio.Event()
        self._step_sec = inf  # of the last step
        self._passed, self._was_quiet, self._is_awaited = 0.0, False, False  # what decides when others run
        self.failure: str | None = None  # what a step has failed for: tables that were wrong once are not trusted again

    @property
    def waiting(self) -> int:
        return len(self._joining) + len(self.engine.scheduler.waiting)

    def check_room(self, completions: int) -> None:
        """Raises BusyError when so many more cannot wait."""
        if self.waiting + completions > self._most_waiting:
            raise BusyError

    @asynccontextmanager
    async def joined(self, completions: Mapping[Completion, TokenClock], streams: bool) -> AsyncIterator[Inbox]:
        """Where the completions' pieces come in until they are finished; those that are not at the block's end are dropped.

        What comes is taken as it comes where it `streams`, else in the end.
        """
        inbox, until = Inbox(len(completions), streams), perf_counter() + self._longest_sec
        self._wanted |= {completion: (inbox, clock) for completion, clock in completions.items()}
        self._until |= dict.fromkeys(completions, until)
        self._joining += completions
        self._wake.set()
        try:
            yield inbox
        finally:
            self._leaving += [completion for completion in completions if self._wanted.pop(completion, None)]
            for completion in completions:
                self._until.pop(completion, None)
            self._wake.set()

    async def run(self) -> None:
        """Takes steps as long as there is anything to continue."""
        with ThreadPoolExecutor(1, thread_name_prefix="engine") as thread:
            while True:
                self._end_overdue()
                if self._joining:
                    await self._others()
                self._admit()
                if self.engine.is_idle:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                try:
                    self._hand_out(await self._step(thread))
                except EngramError as e:
                    self._fail(e)
                await self._let_others_run()

    async def _let_others_run(self) -> None:
        """At once where somebody waits for what was handed out, or somebody had something to do the last time.

        Else only now and then: to find that there is nothing to do takes a fiftieth of a small model's step.
        """
        began = perf_counter()
        if self._was_quiet and not self._is_awaited and began < self._passed + PASS_SEC:
            return
        self._is_awaited = False
        await asyncio.sleep(0)
        self._passed = perf_counter()
        self._was_quiet = self._passed < began + QUIET_SEC

    @staticmethod
    async def _others() -> None:
        """Lets those join that came at the same time, so that their prompts are computed together."""
        for _ in range(PASSES):
            await asyncio.sleep(0)

    async def _step(self, thread: ThreadPoolExecutor) -> list[Handed]:
        if self._step_sec < SHORT_SEC and self.engine.is_decoding:
            return self._timed()
        if self._step_sec > self._every_sec or not self.engine.is_decoding:
            for inbox, _ in self._wanted.values():
                inbox.flush()
        return await asyncio.get_running_loop().run_in_executor(thread, self._timed)

    def _timed(self) -> list[Handed]:
        began = perf_counter()
        found = self.engine.step()
        self._step_sec = perf_counter() - began
        return found

    @property
    def _every_sec(self) -> float:
        """How often a stream is written to."""
        return min(max(SENT_EVERY_SEC, WRITTEN_EVERY_SEC * len(self._wanted)), SELDOM_SEC)

    def _end_overdue(self) -> None:
        """Tells those that wait for a completion whose time is over; they leave then."""
        while self._until and next(iter(self._until.values())) < perf_counter():
            completion = next(iter(self._until))
            del self._until[completion]
            if completion in self._wanted:
                message = f"a completion may take {self._longest_sec:g} seconds, and these are over"
                self._wanted[completion][0].fail(EngramError(message))

    def _admit(self) -> None:
        if not (self._joining or self._leaving):
            return
        leaving = set(self._leaving)
        for completion in self._joining:
            if completion not in leaving:
                self.engine.add(completion)
        for completion in leaving.difference(self._joining):
            self.engine.cancel(completion)
        self._joining, self._leaving = [], []

    def _hand_out(self, found: Sequence[Handed]) -> None:
        now, every_sec = perf_counter(), self._every_sec
        for completion, piece in found:
            if wanted := self._wanted.get(completion):
                inbox, clock = wanted
                if piece.token_ids:
                    clock.tick(now)
                inbox.put(completion, piece, now, every_sec)
                self._is_awaited |= inbox.is_filled
            if piece.finish_reason:
                self._wanted.pop(completion, None)
                if completion in self._leaving:
                    self._leaving.remove(completion)

    def _fail(self, error: EngramError) -> None:
        """Ends all that go on, since a step that failed has left each of them anywhere."""
        self.failure = str(error)
        self.engine.drop_all()
        self._is_awaited = True
        for inbox, _ in self._wanted.values():
            inbox.fail(error)
        self._leaving = []
        self._wanted = {completion: self._wanted[completion] for completion in self._joining if completion in self._wanted}
