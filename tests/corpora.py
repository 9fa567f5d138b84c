"""Small real corpora for tests: the functions and classes of some standard modules, one document each."""

import argparse
import asyncio.base_events
import email.message
import inspect
import json
import tarfile
from pathlib import Path

MODULES = (argparse, asyncio.base_events, email.message, tarfile)


def write_jsonl(path: Path) -> Path:
    pieces = [piece for module in MODULES for piece in inspect.getsource(module).split("\n\n") if piece.strip()]
    path.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces))
    return path
