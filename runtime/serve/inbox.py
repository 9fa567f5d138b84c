"""Inbox: what was handed out for one request, until the request takes it."""

import asyncio
from collections.abc import Sequence
from math import inf
from time import perf_counter

from hashing.base.errors import EngramError
from runtime.serve.completion import Completion, Piece

Handed = tuple[Completion, Piece]


class Inbox:
    """Wakes whoever waits when all completions are finished, and before that every `every_sec` seconds, the first time at once.

    To be woken, and to write what came, takes longer than a step of a small model.
    """

    def __init__(self, completions: int, every_sec: float = inf) -> None:
        self.unfinished, self._every_sec = completions, every_sec
        self._next = inf if every_sec == inf else 0.0
        self._pieces: dict[Completion, list[Piece]] = {}
        self._error: EngramError | None = None
        self._filled = asyncio.Event()

    def put(self, completion: Completion, piece: Piece, now: float) -> None:
        self._pieces.setdefault(completion, []).append(piece)
        self.unfinished -= piece.finish_reason is not None
        if now >= self._next or self.unfinished == 0 or piece.finish_reason == "error":
            self._filled.set()

    def fail(self, error: EngramError) -> None:
        self._error = error
        self._filled.set()

    def flush(self) -> None:
        """Wakes whoever waits if there is anything, since more may be long in coming."""
        if self._pieces and self._every_sec < inf:
            self._filled.set()

    async def take(self) -> list[Handed]:
        """What came since the last time, for each completion as one piece. Raises EngramError where a step has failed."""
        await self._filled.wait()
        self._filled.clear()
        if self._error:
            raise self._error
        taken, self._pieces = self._pieces, {}
        self._next = perf_counter() + self._every_sec
        return [(completion, _joined(pieces)) for completion, pieces in taken.items()]


def _joined(pieces: Sequence[Piece]) -> Piece:
    """Pieces that follow one another, as one."""
    if len(pieces) == 1:
        return pieces[0]
    return Piece(
        "".join(piece.text for piece in pieces),
        [token for piece in pieces for token in piece.token_ids],
        [each for piece in pieces for each in piece.likelihoods],
        pieces[-1].finish_reason,
    )
