"""A pipe or a device in the place of a file is refused by whoever reads it, and not waited for."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hashing.base.errors import EngramError
from hashing.base.regular_file import regular_size
from hashing.spec import HashSpec
from hashing.text.tokenizer import load_tokenizer
from runtime.state_dict import read_torch_demo
from table.checkpoints.demo import read_demo
from table.checkpoints.safetensors_file import read_header
from tests.stores import spec_of_heads

READERS: dict[str, Callable[[Path], object]] = {
    "size": regular_size,
    "spec": HashSpec.load,
    "tokenizer": lambda path: load_tokenizer(str(path)),
    "safetensors header": read_header,
    "safetensors state dict": lambda path: read_demo(path, spec_of_heads((5, 7)), np.empty(0, np.int32)),
    "torch state dict": lambda path: read_torch_demo(path, spec_of_heads((5, 7)), np.empty(0, np.int32)),
}


@pytest.mark.parametrize("name", READERS)
def test_only_files_are_read(tmp_path: Path, name: str) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        with pytest.raises(EngramError, match=f"{path.name} is no file"):
            READERS[name](path)
    with pytest.raises(EngramError, match="no such file"):
        READERS[name](tmp_path / "none.json")
