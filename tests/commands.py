"""Commands as a person types them: run in this process, or in one of their own where a signal or a port is at stake."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from engram_cli.main import main

ROOT = Path(__file__).parents[1]
ROOM = ("--memory", "8GiB")  # for a count in this process, whose memory counts whatever tests before have left in it


@dataclass(frozen=True, slots=True)
class Done:
    """What a command that ended has said."""

    returncode: int
    stdout: str
    stderr: str


def engram(*arguments: object, cwd: Path | None = None) -> Done:
    """Runs a command in this process. An exception that the command line does not translate fails the test, as a bug would."""
    out, err = (TextIOWrapper(BytesIO(), encoding="utf-8", newline="", write_through=True) for _ in range(2))
    with chdir(cwd or Path.cwd()), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    for stream in (out, err):
        stream.seek(0)
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, out.read(), err.read())


def engram_process(*arguments: object, cwd: Path | None = None, **streams: Any) -> subprocess.Popen[str]:
    """Starts a command in a process and a session of its own; what it says on stderr can be read line by line."""
    command = [sys.executable, "-m", "engram_cli.main", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment, start_new_session=True, **streams
    )


def document(*arguments: object, cwd: Path | None = None) -> dict[str, Any]:
    """The JSON document that a command prints, on one line."""
    done = engram(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return dict(json.loads(done.stdout))


def refused(done: Done, code: int, message: str) -> None:
    """Asserts that a command ended with the code and one error, in words that the pattern finds."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Within the block no file can grow beyond the size: the write fails as on a full drive."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
