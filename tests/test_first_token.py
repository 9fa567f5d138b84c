"""The first token is as ready as the others: whatever is compiled, or loaded from the cache of what was, is so before."""

import json
import subprocess
import sys

import pytest

from runtime.run import Run
from tests.commands import ROOT

SCRIPT = """
import gc, json, sys
from pathlib import Path
from numba.core.registry import CPUDispatcher
from runtime.run import Run
from runtime.serve.run_generator import RunGenerator
from runtime.serve.sampler import Sampling

def ready():
    return sorted((f.py_func.__qualname__, len(f.signatures)) for f in gc.get_objects() if isinstance(f, CPUDispatcher))

generator = RunGenerator.load(Run(Path(sys.argv[1])), sys.argv[2])
before = ready()
next(generator.text(generator.encode("def parse("), Sampling(max_tokens=3)))
print(json.dumps([before, ready()]))
"""


@pytest.mark.parametrize(("placement", "kernel"), [("device", "gather_float32"), ("disk", "read")])
def test_nothing_is_compiled_for_the_first_token(trained_run: Run, placement: str, kernel: str) -> None:
    command = [sys.executable, "-c", SCRIPT, str(trained_run.folder), placement]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    before, after = json.loads(done.stdout)
    assert after == before
    assert dict(before)[kernel] > 0
