"""Layout: where the rows of a store go in the files of its checkpoint, proven before a byte is written.

A manifest says which tensors were cut out, the kept headers where they were. Somebody may have changed either, so they are
compared: every tensor is of the type and width of the store's rows, and the tensors of a layer hold each of its rows once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import get_args

from hashing.base.errors import EngramError
from table.checkpoints.safetensors_file import MAX_HEADER_BYTES, Tensor, parse_header
from table.encodings.encoding import ENCODING_OF, Encoding
from table.store.origin import Cut, OriginFile, Plane
from table.store.store import TableStore

GROUPED = "e4m3-e8m0"  # the encoding of a layer with a plane of scales


@dataclass(frozen=True, slots=True)
class Layout:
    """A file of the checkpoint as it will be: `size` bytes, the kept ones around those of the cut tensors."""

    file: OriginFile
    kept: Path
    size: int
    cuts: tuple[tuple[Tensor, Cut], ...] = ()  # in the order of their bytes


def read_layout(file: OriginFile, kept: Path) -> Layout:
    """From the kept bytes. Raises EngramError when their header lacks a cut tensor, or does not leave as many bytes."""
    if not file.cuts:
        return Layout(file, kept, file.kept_bytes)
    with kept.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        header = parse_header(Path(file.name), source.read(min(length, MAX_HEADER_BYTES)), None)
    if missing := [cut.tensor for cut in file.cuts if cut.tensor not in header.tensors]:
        raise EngramError(f"the header of {file.name} lacks {missing[0]}, which the manifest says was cut out")
    pairs = sorted(((header.tensors[cut.tensor], cut) for cut in file.cuts), key=lambda pair: pair[0].begin)
    expected = header.size - sum(tensor.end - tensor.begin for tensor, _ in pairs)
    if file.kept_bytes != expected:
        raise EngramError(f"{file.kept_bytes:,} bytes are kept of {file.name}, but its header leaves {expected:,}")
    return Layout(file, kept, header.size, tuple(pairs))


def check_layouts(store: TableStore, layouts: Sequence[Layout]) -> None:
    """Raises EngramError when the tensors are of another encoding than the store's, or do not hold each row once."""
    pairs = [pair for layout in layouts for pair in layout.cuts]
    for layer in sorted({cut.layer for _, cut in pairs}):
        own = [(tensor, cut) for tensor, cut in pairs if cut.layer == layer]
        _check_encoding(store, layer, own)
        for plane in get_args(Plane):
            if found := [(tensor, cut) for tensor, cut in own if cut.plane == plane]:
                _check_plane(store, layer, plane, found)


def _check_encoding(store: TableStore, layer: int, own: Iterable[tuple[Tensor, Cut]]) -> None:
    """A layer's scales may lie in another file than its codes, so they are looked for in all."""
    planes = {cut.plane for _, cut in own}
    dtypes = {tensor.dtype for tensor, cut in own if cut.plane == "codes"}
    if len(dtypes) != 1 or not dtypes <= set(ENCODING_OF):
        raise EngramError(f"the tensors of layer {layer} are of dtype {' and '.join(sorted(dtypes)) or 'none'}, expected one")
    name = GROUPED if "scales" in planes else ENCODING_OF[dtypes.pop()]
    if store.encoding.name != name:
        raise EngramError(
            f"{store.path} holds {store.encoding.name} rows, but the checkpoint had {name}",
            hint=f"first convert it with engram table convert {quote(str(store.path))} --out … --encoding {name}",
        )


def _check_plane(store: TableStore, layer: int, plane: Plane, own: Sequence[tuple[Tensor, Cut]]) -> None:
    """Its tensors have the type and width that the encoding gives it, and hold each of the layer's rows once."""
    dtype, width = _form(store.encoding, store.head_dim, plane)
    for tensor, _ in own:
        rows = tensor.shape[0] if tensor.shape else 0
        if (dtype and tensor.dtype != dtype) or not rows or tensor.end - tensor.begin != rows * width:
            expected = f"{width} bytes a row" + (f" of {dtype}" if dtype else "")
            raise EngramError(f"{tensor.name} is {tensor.dtype} {list(tensor.shape)}, expected {expected}")
    expected_row, last = 0, 1 if plane == "table_scale" else store.spec.rows(layer)
    for first, end, name in _ranges(own):
        if first != expected_row:
            raise EngramError(f"{name} has the {plane} of layer {layer} from row {first:,} on, expected {expected_row:,}")
        expected_row = end
    if expected_row != last:
        raise EngramError(f"the {plane} of layer {layer} end at row {expected_row:,} in the checkpoint, expected {last:,}")


def _form(encoding: Encoding, head_dim: int, plane: Plane) -> tuple[str, int]:
    """The dtype that a plane's tensors must have, "" where the encoding was told by it, and the bytes of a row."""
    if plane == "codes":
        return "F8_E4M3" if encoding.name == GROUPED else "", encoding.code_bytes(head_dim)
    if plane == "scales":
        return "F8_E8M0", encoding.row_bytes(head_dim) - encoding.code_bytes(head_dim)
    return "BF16", 2


def _ranges(own: Iterable[tuple[Tensor, Cut]]) -> Iterator[tuple[int, int, str]]:
    """First row, end and name of each tensor, by rows."""
    for tensor, cut in sorted(own, key=lambda pair: pair[1].first_row):
        yield cut.first_row, cut.first_row + tensor.shape[0], tensor.name
