"""The demo's state dict in torch's own file format. Only tensors are unpickled, and rows stay on disk until they are read."""

import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.base.regular_file import regular_size
from hashing.spec import HashSpec
from table.checkpoints.demo import demo_checkpoint, table_tensors
from table.checkpoints.published import Checkpoint
from table.checkpoints.safetensors_file import Tensor
from table.store.parts import ArrayPart

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def read_torch_demo(path: Path, spec: HashSpec, mapping: NDArray[np.int32]) -> Checkpoint:
    """Raises EngramError when the file is no state dict or holds no table of the spec's."""
    regular_size(path)
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as e:
        reason = str(e).splitlines()[0]
        raise EngramError(f"{path} is not a torch file of tensors alone: {reason}") from e
    if not isinstance(state, dict):
        raise EngramError(f"{path} holds no state dict")
    names = table_tensors([name for name, value in state.items() if isinstance(value, torch.Tensor)], spec, path)
    weights = {layer: state[name].contiguous() for layer, name in names.items()}
    tables = {
        layer: Tensor(names[layer], DTYPES.get(weight.dtype, str(weight.dtype)), tuple(weight.shape), 0, weight.nbytes)
        for layer, weight in weights.items()
    }
    parts = {layer: ArrayPart(weight.view(torch.uint8).numpy()) for layer, weight in weights.items()}
    return demo_checkpoint(path, spec, mapping, tables, dict(parts), ())
