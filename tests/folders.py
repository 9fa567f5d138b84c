"""What is in a folder, compared file by file."""

import filecmp
from pathlib import Path


def contents(path: Path) -> list[str]:
    """The paths of all files in a folder, relative to it."""
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def assert_identical(path: Path, reference: Path) -> None:
    """Asserts that two folders hold the same files with the same bytes."""
    names = contents(reference)
    assert contents(path) == names
    assert filecmp.cmpfiles(path, reference, names, shallow=False)[1:] == ([], [])


def assert_same_files(exported: Path, original: Path) -> None:
    """Asserts that every file of the one folder is in the other, with the same bytes."""
    names = [file.name for file in exported.iterdir()]
    assert names
    assert all(filecmp.cmp(exported / name, original / name, shallow=False) for name in names)
