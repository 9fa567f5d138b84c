"""Files named by others: a pipe or a device in the place of a file is refused at once, not waited for."""

import stat
from pathlib import Path

from hashing.base.errors import EngramError
from hashing.base.path_argument import check_path


def regular_size(path: Path) -> int:
    """Bytes of a regular file. Raises EngramError when there is none, or it is a folder, a pipe or a device."""
    check_path(path, "a reader of files")
    try:
        state = path.stat()
    except FileNotFoundError as e:
        raise EngramError(f"no such file: {path}") from e
    except OSError as e:
        raise EngramError(f"{path} cannot be read: {e.strerror}") from e
    if not stat.S_ISREG(state.st_mode):
        raise EngramError(f"{path} is no file: it is a folder, a pipe or a device")
    return state.st_size
