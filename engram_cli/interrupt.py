"""Ctrl-C, and SIGTERM for those who treat it alike: as an error with a sentence, and as a request to finish what is in hand."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hashing.base.errors import EngramError


class Terminated(KeyboardInterrupt):
    """SIGTERM, within `terminable`."""


class CommandInterruptedError(EngramError):
    exit_code = 130


class CommandTerminatedError(CommandInterruptedError):
    exit_code = 143


def interrupted(
    by: KeyboardInterrupt, message: str = "interrupted; nothing half-written was left behind", hint: str = ""
) -> CommandInterruptedError:
    """The error of a command that was; without a message, of one of which nothing stays."""
    kind = CommandTerminatedError if isinstance(by, Terminated) else CommandInterruptedError
    return kind(message, hint=hint)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM interrupts as Ctrl-C does; by itself it would end the process without a word."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
        message = f"interrupted; what was written so far is in {kept}"
        raise interrupted(e, message, hint="the same command goes on from there") from e


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
def interrupt_asked(*others: signal.Signals) -> Iterator[Callable[[], int]]:
    """Within the block the first Ctrl-C, or another signal, only makes the yielded function give its number; before, it is 0.

    A second one does what it would have done without the block.
    """
    asked = 0
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *others)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = number
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        restore()
