"""The `zarr.json` files of a store, as Zarr v3 has them: always the same bytes for the same content.

They are written here and not by zarr-python so that they can be compared byte for byte, and so that opening a store costs
milliseconds.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def canonical_json(content: Any) -> bytes:
    """Sorted keys, no spaces, ASCII."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def group_json(attributes: Mapping[str, Any]) -> bytes:
    return canonical_json({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)})


def array_json(shape: tuple[int, ...], chunk: tuple[int, ...], dtype: str) -> bytes:
    """An uncompressed little-endian array whose absent chunks are zeros."""
    kind = np.dtype(dtype)
    little = {"configuration": {"endian": "little"}} if kind.itemsize > 1 else {}
    return canonical_json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0.0 if kind.kind == "f" else 0,
            "codecs": [{"name": "bytes", **little}],
            "attributes": {},
        }
    )
