"""Ctrl-C: as an error with a sentence, and as a request to finish what is in hand."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hashing.base.errors import EngramError


class CommandInterruptedError(EngramError):
    exit_code = 130


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Within the block Ctrl-C says where what was written so far is kept, if anything was."""
    from hashing.base.atomic import partial_path

    try:
        yield
    except KeyboardInterrupt as e:
        kept = partial_path(out)
        if not kept.exists():
            raise
        raise CommandInterruptedError(
            f"interrupted; what was written so far is in {kept}", hint="the same command goes on from there"
        ) from e


@contextmanager
def complete(out: Path) -> Iterator[None]:
    """Within the block Ctrl-C says that what was asked for is there, and only what follows is not."""
    try:
        yield
    except KeyboardInterrupt as e:
        raise CommandInterruptedError(f"interrupted; {out} is complete, the report on it is not") from e


@contextmanager
def held_back() -> Iterator[None]:
    """Within the block Ctrl-C waits, and in a process that is started there until it calls `let_through`.

    Python and its packages take a while to start, and one that comes meanwhile would be told as a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Raises KeyboardInterrupt when a Ctrl-C was held back since the process was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def interrupt_asked() -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C only makes the yielded function true; a second one interrupts at once."""
    asked = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
