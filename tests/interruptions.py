"""Jobs that are killed or interrupted at a file operation of one's choice."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from engram_cli.interrupt import CommandInterruptedError

# What Python tells its audit hooks of, each before it happens.
OPERATIONS = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
COUNTED = 250  # most that a child's exit status can say

Kind = Literal["SIGKILL", "Ctrl-C"]


def _touches(folder: Path, event: str, arguments: tuple[Any, ...]) -> bool:
    """Also what is removed with a folder, which is named within it."""
    within = event in {"os.remove", "os.rmdir"} and arguments[1] != -1
    return event in OPERATIONS and (within or any(isinstance(a, str) and a.startswith(str(folder)) for a in arguments))


def interrupted(job: Callable[[], object], folder: Path, operation: int, kind: Kind) -> None:
    """Does a job in a child that ends before the given operation (from 1) on files under `folder`."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if _touches(folder, event, arguments):
            seen += 1
            if seen == operation and kind == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            if seen == operation:
                raise KeyboardInterrupt

    _in_child(job, hook)


def operations(job: Callable[[], object], folder: Path) -> int:
    """How many operations on files under `folder` a job takes, at most COUNTED."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        seen += _touches(folder, event, arguments)

    return _in_child(job, hook, lambda: min(seen, COUNTED))


def _in_child(
    job: Callable[[], object], hook: Callable[[str, tuple[Any, ...]], None], result: Callable[[], int] = lambda: 0
) -> int:
    child = os.fork()
    if child == 0:
        status = COUNTED + 1
        try:
            sys.addaudithook(hook)  # nothing takes one away again
            job()
            status = result()
        except (KeyboardInterrupt, CommandInterruptedError):
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    assert ended in (-signal.SIGKILL, *range(COUNTED + 1)), "the job failed by itself"
    return ended
