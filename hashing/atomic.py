"""Files and folders that appear whole or not at all.

Content is written beside its destination under a `.partial` name, then renamed. A reader therefore sees the old content, the
new, or none; what an interrupted writer leaves behind says so by its name and is replaced by the next one. That holds when a
process dies. To hold when the power fails too, content is first flushed to the drive, unless it is large and can be made again.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from hashing.errors import EngramError

SYNCED_AT_ONCE = 16


def partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def remove(path: Path) -> None:
    """Deletes a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Asks the drive to keep a file or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Waits until the drive has a file, or all that is in a folder."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    with ThreadPoolExecutor(SYNCED_AT_ONCE) as threads:  # at once, so that one commit of the file system's journal serves many
        for _ in threads.map(sync, files):
            pass


def install(partial: Path, path: Path) -> None:
    """Gives what was written under `partial` the name `path`.

    An existing file is replaced in one step; an existing folder is moved aside first, so that for a moment there is none.
    """
    if partial.is_dir() and path.exists():
        aside = path.with_name(path.name + ".old")
        remove(aside)
        path.rename(aside)
        partial.rename(path)
        remove(aside)
    else:
        partial.replace(path)
    sync(path.parent)


@contextmanager
def atomic_path(path: Path, flushed: bool = True) -> Iterator[Path]:
    """A name to write a file or folder under; it takes its place at `path` when the block ends without an error."""
    partial = partial_path(path)
    remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if flushed:
            flush(partial)
        install(partial, path)
    except BaseException:
        remove(partial)
        raise


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def refuse_overwrite(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise EngramError(f"{path} is already there and would be overwritten.", hint="pass --force to replace it")
