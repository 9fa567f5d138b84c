"""One command in several processes of this machine, which train together.

They find each other as torchrun's do, by the same names in the environment. The first has the terminal; of the others only what
ends them is shown, and only where the first cannot say it. They end when this process does, however it ends: each reads a pipe
that is closed then.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO

from hashing.base.cores import CORES

LAUNCHED = "ENGRAM_LAUNCHED"  # set where standard input is the pipe
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
GRACE_SEC = 10.0  # for the others to end by themselves, once one has failed: those that have not met yet would wait for it
POLL_SEC = 0.05


def in_group() -> bool:
    """Whether this process is one of several that a launcher has started."""
    return "WORLD_SIZE" in os.environ


@contextmanager
def silent() -> Iterator[None]:
    """Within the block nothing is printed; an error that ends it is."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def run_processes(arguments: Sequence[str], count: int) -> int:
    """Runs `engram` with the arguments in so many processes; the exit code, which is the first's where it has one to give."""
    with ExitStack() as files:
        said = [files.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        port = free_port()
        children = [_start(arguments, rank, count, port, said[rank]) for rank in range(count)]
        with _passed_on(children):
            failed, were_ended = _waited(children)
        if failed is None:
            return 0
        if were_ended:
            print(f"error: process {failed} of {count} has ended, and others waited for it", file=sys.stderr)
            print("hint: the same command begins again, or train --resume where a training was begun", file=sys.stderr)
            return 1
        first, others = children[0].returncode, [_text(one) for one in said[1:]]
        unsaid = [text for text in others if text and (first <= 0 or "Traceback" in text)]
        sys.stderr.write(unsaid[0] if unsaid else "")
        return first if first > 0 else 1


def end_with_parent() -> None:
    """In a process that `run_processes` started: stops as by SIGTERM when that one is gone."""
    if LAUNCHED not in os.environ:
        return

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _start(arguments: Sequence[str], rank: int, count: int, port: int, said: IO[bytes]) -> "subprocess.Popen[bytes]":
    threads = str(max(1, CORES // count))
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    usual = {"OMP_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": LOOPBACK}
    return subprocess.Popen(
        [sys.executable, "-m", "engram_cli.entry", *arguments],
        env={**usual, **os.environ, **{name: str(value) for name, value in told.items()}, LAUNCHED: "1"},
        stdin=subprocess.PIPE,
        stdout=None if rank == 0 else subprocess.DEVNULL,
        stderr=None if rank == 0 else said,
    )


@contextmanager
def _passed_on(children: Sequence["subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Within the block SIGTERM goes to the processes, and Ctrl-C, which they have from the terminal, ends nothing here."""

    def tell(number: int, _frame: object) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, tell), signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _waited(children: Sequence["subprocess.Popen[bytes]"]) -> tuple[int | None, bool]:
    """Waits for all; which was the first to fail, if any did, and whether others had to be ended for it."""
    failed, failed_at, were_ended = None, 0.0, False
    while None in [child.poll() for child in children]:
        for rank, child in enumerate(children):
            if failed is None and child.returncode:
                failed, failed_at = rank, time.monotonic()
            if failed is not None and child.poll() is None and time.monotonic() - failed_at > GRACE_SEC:
                child.kill()
                were_ended = True
        time.sleep(POLL_SEC)
    if failed is None:
        failed = next((rank for rank, child in enumerate(children) if child.returncode), None)
    return failed, were_ended


def _text(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace")
