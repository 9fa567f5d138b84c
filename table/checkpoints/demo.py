"""State dicts of the official demo: `….multi_head_embedding.embedding.weight` (rows, head_dim), float.

Such a file says neither which layer a module belongs to, unless the names have `layers.N.` in them, nor how it addresses: the
hash spec is given beside it, and the rows and, where stored, the heads' offsets must be those of the spec.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.base.json_object import brief
from hashing.spec import HashSpec
from table.checkpoints.published import Checkpoint, LayerSource, TableFile
from table.checkpoints.safetensors_file import SafetensorsFile, Tensor, read_header
from table.encodings.encoding import ENCODING_OF, ENCODINGS
from table.store.origin import Cut
from table.store.parts import FilePart, Part

KIND = "engram-demo"
LAYER = r"layers\.(\d{1,9})\."
TABLE = "multi_head_embedding.embedding.weight"


def table_tensors(names: Sequence[str], spec: HashSpec, path: Path) -> dict[int, str]:
    """Layer → its table's name. Raises EngramError unless every layer of the spec has one."""
    found = [name for name in names if name.endswith(TABLE)]
    numbers = [int(m[1]) if (m := re.search(LAYER, name)) else spec.layers[0] for name in found]
    if sorted(numbers) != list(spec.layers):
        raise EngramError(
            f"{path} holds tables for layers {sorted(numbers)}, the hash spec has {list(spec.layers)}",
            hint="choose layers with --layer, or give the spec that the module was made with",
        )
    return dict(zip(numbers, found, strict=True))


def read_demo(path: Path, spec: HashSpec, mapping: NDArray[np.int32]) -> Checkpoint:
    """From a safetensors file. Raises EngramError when it holds no table of the spec's."""
    file = read_header(path)
    tables = {layer: file.tensors[name] for layer, name in table_tensors(list(file.tensors), spec, path).items()}
    parts: dict[int, Part] = {}
    for layer, tensor in tables.items():
        rows = tensor.shape[0] if len(tensor.shape) == 2 else 0
        parts[layer] = FilePart(path, tensor.begin, rows, (tensor.end - tensor.begin) // max(1, rows))
    cuts = tuple((tensor, Cut(tensor.name, layer, "codes")) for layer, tensor in tables.items())
    return demo_checkpoint(path, spec, mapping, tables, parts, (TableFile(path, cuts),), _offset_faults(file, spec))


def demo_checkpoint(
    path: Path,
    spec: HashSpec,
    mapping: NDArray[np.int32],
    tables: Mapping[int, Tensor],
    parts: Mapping[int, Part],
    table_files: tuple[TableFile, ...],
    faults: Sequence[str] = (),
) -> Checkpoint:
    """The checkpoint that a state dict's tables make, whatever the state dict's file format."""
    found = list(faults)
    head_dim = tables[spec.layers[0]].shape[-1] if tables[spec.layers[0]].shape else 0
    for layer, tensor in tables.items():
        expected = (spec.rows(layer), head_dim)
        if tensor.shape != expected:
            found.append(f"shape of {tensor.name}: found {list(tensor.shape)}, expected {list(expected)}")
    dtypes = {tensor.dtype for tensor in tables.values()}
    if len(dtypes) > 1 or not dtypes <= set(ENCODING_OF) - {"F8_E4M3"}:
        found.append(f"dtype of the tables: found {', '.join(sorted(dtypes))}, expected one of F32, F16, BF16")
    return Checkpoint(
        kind=KIND,
        path=path,
        spec=spec,
        encoding=ENCODINGS[ENCODING_OF.get(dtypes.pop(), "float32")],
        head_dim=head_dim,
        mapping=mapping,
        layers={layer: LayerSource(((part,),)) for layer, part in parts.items()},
        whole_files=(),
        table_files=table_files,
        faults=tuple(found),
    )


def _offset_faults(file: SafetensorsFile, spec: HashSpec) -> list[str]:
    faults = []
    for name, tensor in file.tensors.items():
        if name.endswith(("multi_head_embedding.offsets", "head_offsets")) and tensor.dtype == "I64":
            layer = int(m[1]) if (m := re.search(LAYER, name)) else spec.layers[0]
            found = np.frombuffer(file.read(name), "<i8").tolist()
            if layer in spec.layers and found != list(spec.offsets(layer)):
                faults.append(f"{name}: found {brief(found)}, expected {brief(list(spec.offsets(layer)))} from the hash spec")
    return faults
