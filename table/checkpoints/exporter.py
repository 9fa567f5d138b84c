"""From a store back to the checkpoint it was imported from: the same files, the same bytes.

What the store keeps of a file is the file without its tables; its header says where they go. The rows in between are the
store's own, so a store whose rows were edited exports a checkpoint that differs in those rows alone.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hashing.base.atomic import atomic_path, refuse_foreign, refuse_overlap
from hashing.base.errors import EngramError
from table.checkpoints.layout import Layout, check_layouts, read_layout
from table.checkpoints.safetensors_file import Tensor
from table.encodings.encoding import ENCODINGS
from table.store.manifest import row_step
from table.store.origin import Cut
from table.store.store import TableStore
from table.store.writer import PIECE_BYTES, THREADS, Progress, quiet, require_space, worker_threads

TASK_BYTES = 64 << 20


def export(store: TableStore, out: Path, progress: Progress = quiet) -> None:
    """Writes the origin's files into the folder `out`, which appears whole or not at all.

    Raises EngramError for a store that was not imported, is in another encoding than its checkpoint, or has damaged rows.
    """
    origin = store.manifest.origin
    if origin is None or not any(file.cuts for file in origin.files):
        raise EngramError(
            f"{store.path} was not imported from safetensors files, so there are none to give back",
            hint="its rows lie in plain Zarr arrays, which any Zarr reader opens",
        )
    refuse_overlap(out, store.path)
    refuse_foreign(out, {file.name for file in origin.files})
    layouts = [read_layout(file, store.kept_path(position)) for position, file in enumerate(origin.files)]
    check_layouts(store, layouts)
    require_space(out, store.total_bytes + sum(file.kept_bytes for file in origin.files))
    with atomic_path(out, flushed=False) as partial:  # the store still has every byte
        partial.mkdir()
        for layout in layouts:
            with layout.kept.open("rb") as source, (partial / layout.file.name).open("wb") as target:
                _write_file(store, layout, source, target, progress)


def _write_file(store: TableStore, layout: Layout, kept: BinaryIO, target: BinaryIO, progress: Progress) -> None:
    """The kept bytes in their places, then the rows in theirs, by several threads."""
    end = 0
    for tensor, _ in layout.cuts:
        _copy(kept, target, tensor.begin - end)
        target.seek(tensor.end)
        end = tensor.end
    _copy(kept, target, layout.size - end)
    target.flush()
    with worker_threads(THREADS, "export") as threads:
        tasks = [
            threads.submit(_write_rows, store, planes, first, count, target.fileno())
            for planes in _together(layout.cuts)
            for first, count in _pieces(store, planes[0][0].shape[0])
        ]
        for task in as_completed(tasks):
            progress(task.result())
    for tensor, cut in layout.cuts:
        if cut.plane == "table_scale":
            write_at(target.fileno(), tensor.begin, _scale_bytes(store.manifest.layers[cut.layer].scale))


def _together(tensors: Iterable[tuple[Tensor, Cut]]) -> list[list[tuple[Tensor, Cut]]]:
    """Planes of the same rows, so that a record is read once."""
    groups: dict[tuple[int, int, int], list[tuple[Tensor, Cut]]] = {}
    for tensor, cut in tensors:
        if cut.plane != "table_scale":
            groups.setdefault((cut.layer, cut.first_row, tensor.shape[0]), []).append((tensor, cut))
    return list(groups.values())


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count:
        piece = source.read(min(PIECE_BYTES, count))
        assert piece, "the layout was compared with how many bytes are kept"
        target.write(piece)
        count -= len(piece)


def _pieces(store: TableStore, rows: int) -> Iterator[tuple[int, int]]:
    """First row and count, about TASK_BYTES each and a whole number of checksummed blocks."""
    step = _rows_of(store, TASK_BYTES)
    for first in range(0, rows, step):
        yield first, min(step, rows - first)


def _rows_of(store: TableStore, size: int) -> int:
    """Rows that are about `size` bytes and a whole number of checksummed blocks."""
    step = row_step(store.row_bytes)
    return max(1, size // store.row_bytes // step) * step


def _write_rows(store: TableStore, planes: Sequence[tuple[Tensor, Cut]], first: int, count: int, descriptor: int) -> int:
    """Writes the planes of rows to their places in the file; gives how many bytes."""
    codes = store.encoding.code_bytes(store.head_dim)
    places = {"codes": slice(0, codes), "scales": slice(codes, store.row_bytes)}
    widths = [(tensor.end - tensor.begin) // tensor.shape[0] for tensor, _ in planes]
    buffer = np.empty((min(count, _rows_of(store, PIECE_BYTES)), store.row_bytes), np.uint8)
    pieces = [np.empty((len(buffer), width), np.uint8) for width in widths]
    cut = planes[0][1]
    for done in range(first, first + count, len(buffer)):
        records = buffer[: min(len(buffer), first + count - done)]
        store.read_checked(cut.layer, cut.first_row + done, records)
        for (tensor, plane), width, piece in zip(planes, widths, pieces, strict=True):
            piece[: len(records)] = records[:, places[plane.plane]]
            write_at(descriptor, tensor.begin + done * width, piece[: len(records)])
    return count * sum(widths)


def _scale_bytes(scale: float) -> NDArray[np.uint8]:
    """As bfloat16, which every scale of a table is."""
    return ENCODINGS["bfloat16"].encoded(np.array([[scale]], np.float32))[0].reshape(-1)


def write_at(descriptor: int, offset: int, data: NDArray[np.uint8]) -> None:
    view = data.reshape(-1).data
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
