"""Files and folders that appear whole or not at all.

Content is written beside its destination under a `.partial` name, then renamed. A reader therefore sees the old content, the
new, or none; what an interrupted writer leaves behind says so by its name and is replaced by the next one. That holds when a
process dies. To hold when the power fails too, content is first flushed to the drive, unless it is large and can be made again.
"""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from hashing.base.errors import EngramError, UsageError

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
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{path.name}.old-"))
        old = aside / path.name
        try:
            path.rename(old)
            partial.rename(path)
        finally:
            if not path.exists():
                old.rename(path)
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
    if path.name in {"", ".."}:
        raise UsageError(f'"{path}" gives no name to what is to be written')
    if path.exists() and not force:
        raise EngramError(f"{path} is already there and would be overwritten.", hint="pass --force to replace it")


def refuse_overlap(path: Path, source: Path) -> None:
    """Raises UsageError when what is written would lie over, in or around what it is made from."""
    out, read = path.resolve(), source.resolve()
    if out == read or out in read.parents or read in out.parents:
        raise UsageError(f"{path} would be written over, into or around {source}, which is read", hint="name another place")


def refuse_foreign(path: Path, own: Collection[str]) -> None:
    """Raises EngramError when there is something at `path` that is no folder of files and folders with `own` names."""
    for place in (path, partial_path(path)):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise EngramError(f"{place} is in the way: it is no folder", hint="move it, or name another place")
        if foreign := sorted(entry.name for entry in place.glob("*") if entry.name not in own):
            raise EngramError(
                f"{place} holds {foreign[0]}, which is not replaced by what is to be written", hint="name another place"
            )
