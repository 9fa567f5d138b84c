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
GRACE_SEC = 60.0  # for the others to end by themselves, once one has failed: a save may be under way
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
    """Runs `engram` with the arguments in so many processes; the exit code, of the first that failed or of the first."""
    with ExitStack() as files:
        said = [files.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        port = free_port()
        children = [_start(arguments, rank, count, port, said[rank]) for rank in range(count)]
        with _passed_on(children):
            code = _waited(children)
        for rank, child in enumerate(children):
            if rank and (child.returncode not in (0, code) or children[0].returncode < 0):
                sys.stderr.write(_text(said[rank]))
                break
        return code


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


def _waited(children: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Waits for all; the exit code of the first to fail, as a shell gives it, or 0. Stragglers after a failure are ended."""
    code, failed_at = 0, 0.0
    while any(child.poll() is None for child in children):
        for child in children:
            if not code and child.returncode:
                code, failed_at = child.returncode, time.monotonic()
            if code and child.poll() is None and time.monotonic() - failed_at > GRACE_SEC:
                child.kill()
        time.sleep(POLL_SEC)
    code = code or max(child.returncode for child in children)
    first = children[0].returncode
    code = first if first > 0 else code  # it has said why
    return code if code >= 0 else 128 - code


def _text(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace")
