"""Processes that a command starts, as Linux tells of them, and what they leave when they end."""

import time
from pathlib import Path


def workers_of(process: int) -> list[int]:
    """The processes that `multiprocessing` started for it, less the one that watches over what they leave."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in _read(Path(f"/proc/{child}/cmdline"))]


def in_session(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = _read(stat).rpartition(b") ")[2].split()
        if fields and fields[0] != b"Z" and int(fields[3]) == session:
            found.append(int(stat.parent.name))
    return found


def assert_none_left(session: int) -> None:
    deadline = time.monotonic() + 30
    while left := in_session(session):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def _read(path: Path) -> bytes:
    """Nothing where the process has ended meanwhile."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
