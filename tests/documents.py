"""The Python that a document shows, run."""

from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any


def run_python(script: str, names: dict[str, Any], folder: Path) -> str:
    """What a script prints that is run in a folder; it finds what earlier ones defined in `names`, and leaves its own there."""
    printed = StringIO()
    with chdir(folder), redirect_stdout(printed):
        exec(compile(script, "document", "exec"), names)
    return printed.getvalue()
