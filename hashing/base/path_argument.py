"""Paths given from Python: a text in their place is refused, since much that takes a Path does another thing with a text."""

from pathlib import Path

from hashing.base.errors import UsageError


def check_path(value: object, where: str) -> None:
    """Raises UsageError, beginning with `where` it was given, for what is no Path."""
    if not isinstance(value, Path):
        hint = f'Path("{value}")' if isinstance(value, str) else "a pathlib.Path names a file or a folder"
        raise UsageError(f"{where} got {value!r}, a {type(value).__name__}, expected a Path", hint)
