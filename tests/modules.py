"""What Python code imports: by its text, and by running it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

from tests.commands import ROOT


def imported(path: Path) -> set[str]:
    """The full names of the modules that a file imports; `from a import b` gives `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def loaded_by(script: str) -> set[str]:
    """The packages that are loaded once a script has run in a process of its own."""
    code = f"{script}\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
