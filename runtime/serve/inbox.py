"""Inbox: what was handed out for one request, until the request takes it."""

import asyncio
from math import inf
from time import perf_counter

from hashing.base.errors import EngramError
from runtime.serve.completion import Completion, Piece

Handed = tuple[Completion, Piece]


class Inbox:
    """Wakes whoever waits when all completions are finished; where it `streams` also before, the first time at once."""

    def __init__(self, completions: int, streams: bool) -> None:
        self.unfinished, self._streams = completions, streams
        self._last = -inf  # when something was taken
        self._pieces: dict[Completion, list[Piece]] = {}
        self._error: EngramError | None = None
        self._filled = asyncio.Event()

    def put(self, completion: Completion, piece: Piece, now: float, every_sec: float) -> None:
        """Whoever waits for a stream is woken so many seconds after the last time, or later."""
        if pieces := self._pieces.get(completion):
            pieces.append(piece)
        else:
            self._pieces[completion] = [piece]
        if piece.finish_reason:
            self.unfinished -= 1
        is_due = self._streams and now >= self._last + every_sec
        if is_due or self.unfinished == 0 or piece.finish_reason == "error":
            self._filled.set()

    @property
    def is_filled(self) -> bool:
        """Whether whoever waits is woken."""
        return self._filled.is_set()

    def fail(self, error: EngramError) -> None:
        self._error = error
        self._filled.set()

    def flush(self) -> None:
        """Wakes whoever waits if there is anything, since more may be long in coming."""
        if self._pieces and self._streams:
            self._filled.set()

    async def take(self) -> list[Handed]:
        """What came since the last time, for each completion as one piece. Raises EngramError where a step has failed."""
        await self._filled.wait()
        self._filled.clear()
        if self._error:
            raise self._error
        taken, self._pieces = self._pieces, {}
        self._last = perf_counter()
        return [(completion, completion.joined(pieces)) for completion, pieces in taken.items()]
