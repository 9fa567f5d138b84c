"""From a store back to the checkpoint it was imported from: the same files, the same bytes.

What the store keeps of a file is the file without its tables; its header says where they go. The rows in between are the
store's own, so a store whose rows were edited exports a checkpoint that differs in those rows alone.
"""

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hashing.atomic import atomic_path
from hashing.errors import EngramError
from table.checkpoint import ENCODING_OF
from table.checksum import crc32c, extend_crc32c
from table.encoding import ENCODINGS
from table.manifest import Cut, OriginFile
from table.mapping import PAGE_BYTES
from table.safetensors_file import SafetensorsFile, Tensor, parse_header
from table.store import TableStore
from table.writer import PIECE_BYTES, THREADS, Progress, open_for_writing, quiet, require_space

TASK_BYTES = 64 << 20


def export(store: TableStore, out: Path, progress: Progress = quiet) -> None:
    """Writes the origin's files into the folder `out`, which appears whole or not at all.

    Raises EngramError for a store that was not imported, or that is in another encoding than its checkpoint.
    """
    origin = store.manifest.origin
    if origin is None or not any(file.cuts for file in origin.files):
        raise EngramError(f"{store.path} was not imported from safetensors files, so there are none to give back")
    require_space(out, store.total_bytes + sum(file.kept_bytes for file in origin.files))
    with atomic_path(out) as partial:
        partial.mkdir()
        for position, file in enumerate(origin.files):
            kept = kept_path(store, position)
            with kept.open("rb") as source, (partial / file.name).open("wb") as target:
                if file.cuts:
                    _write_file(store, file, source, target, progress)
                else:
                    _copy(source, target, file.kept_bytes)


def kept_path(store: TableStore, position: int) -> Path:
    """Where the kept bytes of an origin file are. Raises EngramError when they are missing or altered."""
    assert store.manifest.origin is not None
    file = store.manifest.origin.files[position]
    path = store.path / "origin" / str(position) / "c" / "0"
    if not path.is_file() or file_crc32c(path) != file.crc32c:
        raise EngramError(f"{store.path}: what was kept of {file.name} is missing or was altered ({path})")
    return path


def file_crc32c(path: Path) -> str:
    crc = crc32c(b"")
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            crc = extend_crc32c(crc, piece)
    return f"{crc:08x}"


def _write_file(store: TableStore, file: OriginFile, kept: BinaryIO, target: BinaryIO, progress: Progress) -> None:
    """The kept bytes in their places, then the rows in theirs, by several threads."""
    header = _header(store, file, kept)
    tensors = sorted(((header.tensors[cut.tensor], cut) for cut in file.cuts), key=lambda pair: pair[0].begin)
    end = 0
    kept.seek(0)
    for tensor, _ in tensors:
        _copy(kept, target, tensor.begin - end)
        target.seek(tensor.end)
        end = tensor.end
    _copy(kept, target, header.size - end)
    target.flush()
    os.posix_fallocate(target.fileno(), 0, header.size)  # blocks that are there can be written by several threads at once
    direct = open_for_writing(Path(target.name), header.size)
    with direct, ThreadPoolExecutor(THREADS, thread_name_prefix="export") as threads:
        place = Place(target.fileno(), direct.fileno())
        tasks = [
            threads.submit(_write_rows, store, planes, first, count, place)
            for planes in _together(tensors)
            for first, count in _pieces(store, planes[0][0].shape[0])
        ]
        for task in tasks:
            progress(task.result())
    for tensor, cut in tensors:
        if cut.plane == "table_scale":
            write_at(target.fileno(), tensor.begin, _scale_bytes(store.manifest.layers[cut.layer].scale))


def _together(tensors: Iterable[tuple[Tensor, Cut]]) -> list[list[tuple[Tensor, Cut]]]:
    """Planes of the same rows, so that a record is read once."""
    groups: dict[tuple[int, int], list[tuple[Tensor, Cut]]] = {}
    for tensor, cut in tensors:
        if cut.plane != "table_scale":
            groups.setdefault((cut.layer, cut.first_row), []).append((tensor, cut))
    return list(groups.values())


def _header(store: TableStore, file: OriginFile, kept: BinaryIO) -> SafetensorsFile:
    """The file's layout. Raises EngramError when its tables were encoded otherwise than the store's."""
    length = kept.read(8)
    header = parse_header(store.path / file.name, kept.read(int.from_bytes(length, "little")), None)
    scaled = {cut.layer for cut in file.cuts if cut.plane == "scales"}
    for cut in file.cuts:
        name = "e4m3-e8m0" if cut.layer in scaled else ENCODING_OF[header.tensors[cut.tensor].dtype]
        if cut.plane == "codes" and store.encoding != ENCODINGS[name]:
            raise EngramError(
                f"{store.path} holds {store.encoding.name} rows, but {file.name} had {name}",
                hint=f"first convert it with engram table convert --encoding {name}",
            )
    return header


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count:
        piece = source.read(min(PIECE_BYTES, count))
        assert piece, "the kept bytes have their checksum, so there are as many as the header says"
        target.write(piece)
        count -= len(piece)


def _pieces(store: TableStore, rows: int) -> Iterator[tuple[int, int]]:
    """First row and count, about TASK_BYTES each."""
    step = max(1, TASK_BYTES // store.row_bytes)
    for first in range(0, rows, step):
        yield first, min(step, rows - first)


def _write_rows(store: TableStore, planes: Sequence[tuple[Tensor, Cut]], first: int, count: int, place: "Place") -> int:
    """Writes the planes of rows to their places in the file; gives how many bytes."""
    codes = store.encoding.code_bytes(store.head_dim)
    columns = {"codes": slice(0, codes), "scales": slice(codes, store.row_bytes)}
    widths = [(tensor.end - tensor.begin) // tensor.shape[0] for tensor, _ in planes]
    targets = [Pages(place, tensor.begin + first * width) for (tensor, _), width in zip(planes, widths, strict=True)]
    buffer = np.empty((max(1, PIECE_BYTES // store.row_bytes), store.row_bytes), np.uint8)
    cut = planes[0][1]
    for done in range(first, first + count, len(buffer)):
        records = buffer[: min(len(buffer), first + count - done)]
        store.read_records(cut.layer, cut.first_row + done, records)
        for (_, plane), width, pages in zip(planes, widths, targets, strict=True):
            pages.room(len(records) * width).reshape(len(records), width)[:] = records[:, columns[plane.plane]]
    for pages in targets:
        pages.write_all()
    return count * sum(widths)


def _scale_bytes(scale: float) -> NDArray[np.uint8]:
    """As bfloat16, which every scale of a table is."""
    return ENCODINGS["bfloat16"].encoded(np.array([[scale]], np.float32))[0].reshape(-1)


@dataclass(frozen=True, slots=True)
class Place:
    """One file opened twice: through the page cache, and past it for whole pages."""

    cached: int
    direct: int


class Pages:
    """Bytes on their way to a range of a file: whole pages go past the page cache, parts of pages at the ends through it."""

    def __init__(self, place: Place, offset: int) -> None:
        self.place = place
        self.memory = np.frombuffer(mmap.mmap(-1, 2 * PIECE_BYTES), np.uint8)
        self.page = offset // PAGE_BYTES * PAGE_BYTES  # place in the file of the memory's begin
        self.begin = self.end = offset % PAGE_BYTES

    def room(self, count: int) -> NDArray[np.uint8]:
        """(count,) Where the next bytes are to be put, PIECE_BYTES at most."""
        if self.end + count > len(self.memory):
            self._write_whole()
        self.end += count
        return self.memory[self.end - count : self.end]

    def _write_whole(self) -> None:
        whole = self.end // PAGE_BYTES * PAGE_BYTES
        if self.begin and whole:
            write_at(self.place.cached, self.page + self.begin, self.memory[self.begin : PAGE_BYTES])
            self.begin = PAGE_BYTES
        write_at(self.place.direct, self.page + self.begin, self.memory[self.begin : whole])
        if whole:
            self.memory[: self.end - whole] = self.memory[whole : self.end]
            self.page, self.begin, self.end = self.page + whole, 0, self.end - whole

    def write_all(self) -> None:
        self._write_whole()
        write_at(self.place.cached, self.page + self.begin, self.memory[self.begin : self.end])


def write_at(descriptor: int, offset: int, data: NDArray[np.uint8]) -> None:
    view = data.data
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
