"""Files and folders that appear whole or not at all.

Content is written in a folder beside its destination whose name ends in `.partial`, then renamed. A reader therefore sees the
old content, the new, or none; what an interrupted writer leaves behind says so by its name and is replaced by the next one.
That holds when a process dies. To hold when the power fails too, content is first flushed to the drive, unless it is large and
can be made again. The folder is locked while it is written: a second writer is refused, and a dead one's lock dies with it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hashing.base.errors import EngramError, UsageError

SYNCED_AT_ONCE = 16


def partial_path(path: Path) -> Path:
    """The folder in which what will be called `path` is prepared."""
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


def lock_partial(path: Path, own: Collection[str]) -> int:
    """Makes the folder in which `path` is prepared, if need be, and locks it until the descriptor that is returned is closed.

    Raises EngramError when another process holds it, or when there is something in it without one of the names `own`.
    """
    folder = partial_path(path)
    refuse_foreign(folder, own)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        with suppress(FileNotFoundError):
            return _locked(folder, path)


def _locked(folder: Path, path: Path) -> int:
    """Raises FileNotFoundError when the writer before took the folder away, to rename or to remove it, while it was opened."""
    with ExitStack() as unless_locked:
        descriptor = os.open(folder, os.O_RDONLY)
        unless_locked.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise EngramError(f"{path} is being written by another process", hint="wait until it has ended") from e
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(folder)
        unless_locked.pop_all()
    return descriptor


@contextmanager
def atomic_path(path: Path, flushed: bool = True) -> Iterator[Path]:
    """A name to write a file or folder under; it takes its place at `path` when the block ends without an error.

    Raises EngramError when another process is writing `path`, or something foreign lies where it would be prepared.
    """
    folder = partial_path(path)
    lock = lock_partial(path, {path.name})
    try:
        partial = folder / path.name
        remove(partial)
        yield partial
        if flushed:
            flush(partial)
        install(partial, path)
    finally:
        remove(folder)
        os.close(lock)


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


def refuse_foreign(place: Path, own: Collection[str]) -> None:
    """Raises EngramError when there is something at `place` that is no folder of files and folders with `own` names."""
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise EngramError(f"{place} is in the way: it is no folder", hint="move it, or name another place")
    found: list[str] = []
    with suppress(FileNotFoundError):  # a folder that its writer takes away meanwhile holds nothing
        found = [entry.name for entry in place.glob("*")]
    if foreign := sorted(name for name in found if name not in own):
        raise EngramError(
            f"{place} holds {foreign[0]}, which is not replaced by what is to be written", hint="name another place"
        )
