"""Tensors by name in a safetensors file, with what they are of in its metadata: the same content gives the same bytes."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hashing.base.errors import EngramError

NO_SPEC = "none"  # the spec in the metadata of a model without memory
METADATA_KEY = "engram"  # one key, since the library writes several in no fixed order


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Raises OSError when the drive does not take the file."""
    path.touch()
    mode = path.stat().st_mode  # as the user's umask has it; the library makes files that nobody else can read
    try:
        save_file(
            {name: t.contiguous() for name, t in tensors.items()}, path, {METADATA_KEY: json.dumps(metadata, sort_keys=True)}
        )
    except SafetensorError as e:
        if not (found := re.search(r"os error (\d+)", str(e))):
            raise
        raise OSError(number := int(found[1]), os.strerror(number), str(path)) from e
    os.chmod(path, mode)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata. Raises EngramError when the file is damaged."""
    with translated(path):
        return load_file(path), read_metadata(path)


def read_metadata(path: Path) -> dict[str, str]:
    """What a file's tensors are of, without reading them. Raises EngramError when the file is damaged."""
    with translated(path), safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    return json.loads(metadata[METADATA_KEY]) if METADATA_KEY in metadata else metadata


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raises EngramError for what the library says of a damaged file."""
    try:
        yield
    except SafetensorError as e:
        raise EngramError(f"{path} is not a safetensors file, or is truncated: {e}") from e
