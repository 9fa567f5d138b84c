"""Writing a store: shard by shard, in bounded memory, by several threads, and from where an interrupted writer stopped.

Everything is written under a `.partial` name. A shard counts as done once its checksums have taken their name. A writer that
finds an unfinished store of the same plan (the same manifest to be, the same `stamp` of what it is made from) keeps the shards
whose bytes still have their checksums; all else is started anew.

Bytes are left with the system, which is already writing them to the drive, as `cp` leaves them: waiting would halve the speed.
Whoever means to pull the plug next runs `sync` first; whoever suspects that somebody did has the checksums.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from io import FileIO
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashing.base.atomic import install, lock_partial, partial_path, refuse_foreign, remove
from hashing.base.errors import EngramError
from table.encodings.encoding import Records
from table.store.checksum import BLOCK_BYTES, ZERO_BLOCK, block_checksums, crc_text
from table.store.manifest import Manifest, canonical_path, checksum_path, origin_path, row_step, shard_path
from table.store.origin import write_kept
from table.store.shard_map import HUGE_PAGE_BYTES
from table.store.zarr_metadata import group_json

PIECE_BYTES = 2 << 20  # of records in hand per thread: they stay in the processor's cache from reading to writing
THREADS = 4  # more than cores, so that some compute while others wait

ENTRIES = {"zarr.json", "zarr.json.new", "layers", "checksums", "canonical", "origin"}  # of a store's folder

Fill = Callable[[int, Records], None]  # fills records (rows, row_bytes) from a first row on
Progress = Callable[[int], None]  # told of bytes as they are done


def quiet(count: int) -> None:
    """No progress to show."""


def mapping_bytes(mapping: NDArray[np.int32]) -> bytes:
    return mapping.astype("<i4").tobytes()


class StoreWriter:
    """A store being written, by one process at a time.

    As a context manager it removes what it wrote when left by an error, unless it can be resumed. Entering raises EngramError
    when another process is writing the same store, or something else lies in its place.
    """

    def __init__(self, path: Path, manifest: Manifest, mapping: NDArray[np.int32], stamp: str = "") -> None:
        """`manifest` has no shards yet; `stamp` names what the rows are made from, "" for what cannot be resumed."""
        self.path, self.partial, self.stamp = path, partial_path(path), stamp
        self.manifest = self._with_canonical(manifest, mapping)
        self._mapping = mapping
        self._plan = group_json({"engram": {**self.manifest.to_json(), "complete": False}, "stamp": stamp})

    @staticmethod
    def _with_canonical(manifest: Manifest, mapping: NDArray[np.int32]) -> Manifest:
        content = mapping_bytes(mapping)
        return replace(manifest, canonical=(len(mapping), crc_text(content)) if len(mapping) else None)

    def _same_plan(self) -> bool:
        root = self.partial / "zarr.json"
        return root.is_file() and root.read_bytes() == self._plan

    def _begin(self) -> None:
        (self.partial / "zarr.json").unlink(missing_ok=True)  # first, so that what is half removed does not pass for a store
        for left in self.partial.iterdir():
            remove(left)
        for folder, content in self.manifest.nodes():
            (self.partial / folder).mkdir(parents=True, exist_ok=True)
            (self.partial / folder / "zarr.json").write_bytes(content)
        if len(self._mapping):
            chunk = canonical_path(self.partial)
            chunk.parent.mkdir()
            chunk.write_bytes(mapping_bytes(self._mapping))
        self._replace_root(self._plan)

    def _replace_root(self, content: bytes) -> None:
        beside = self.partial / "zarr.json.new"
        beside.write_bytes(content)
        beside.replace(self.partial / "zarr.json")

    def __enter__(self) -> "StoreWriter":
        refuse_foreign(self.path, ENTRIES)
        self._lock = lock_partial(self.path, ENTRIES)
        try:
            if not (self.stamp and self._same_plan()):
                self._begin()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self.stamp:
            remove(self.partial)
        os.close(self._lock)

    def write_origin(self, position: int, pieces: Iterable[bytes]) -> None:
        """The kept bytes of the origin's file. Raises EngramError when they are not those of the manifest."""
        write_kept(origin_path(self.partial, position), self.manifest.origin_files[position], pieces)

    def write_layer(self, layer: int, fill: Fill, progress: Progress = quiet, shards: range | None = None) -> None:
        """Writes the layer's shards that are not there yet, or those given; `fill` is called by several threads at once.

        Between the time that its one process has entered the writer and that it finishes, others may write other shards.
        """
        if shards is None:
            shards = range(self.manifest.shard_count(layer))
        with worker_threads(max(1, min(THREADS, len(shards))), "write") as threads:
            tasks = [threads.submit(self._write_shard, layer, shard, fill, progress) for shard in shards]
            for task in as_completed(tasks):
                task.result()

    def _write_shard(self, layer: int, shard: int, fill: Fill, progress: Progress) -> None:
        checksums = checksum_path(self.partial, layer, shard)
        path = shard_path(self.partial, layer, shard)
        first = shard * self.manifest.layers[layer].shard_rows
        rows = min(self.manifest.layers[layer].shard_rows, self.manifest.spec.rows(layer) - first)
        if not self._is_done(layer, path, checksums):
            for folder in (path.parent, checksums.parent):
                folder.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            with path.open("wb", buffering=0) as file:
                sums = self._write_records(file, first, rows, fill)
                file.truncate(self.manifest.shard_bytes(layer))
            rest = np.full(self.manifest.shard_bytes(layer) // BLOCK_BYTES - len(sums), ZERO_BLOCK, np.uint32)
            beside = checksums.with_name("new")
            beside.write_bytes(np.concatenate([sums, rest]).astype("<u4").tobytes())
            beside.replace(checksums)
        progress(rows * self.manifest.row_bytes)

    def _write_records(self, file: FileIO, first: int, rows: int, fill: Fill) -> NDArray[np.uint32]:
        """Streams records through two buffers; gives the checksums of the blocks written.

        A write ends where a huge page of the file does: the system then keeps the shard in huge pages, from which rows are
        gathered faster, whatever the size of a row.
        """
        row_bytes = self.manifest.row_bytes
        step = row_step(row_bytes)
        piece = -(-HUGE_PAGE_BYTES // (step * row_bytes)) * step
        buffers = cycle(np.empty((2, piece, row_bytes), np.uint8))  # two: what is left of one is written with the next
        left = np.empty(0, np.uint8)
        sums = []
        for done in range(0, rows, piece):
            buffer, count = next(buffers), min(piece, rows - done)
            fill(first + done, buffer[:count])
            used = buffer[: -(-count // step) * step].reshape(-1)
            used[count * row_bytes :] = 0
            blocks = used[: -(-count * row_bytes // BLOCK_BYTES) * BLOCK_BYTES]
            sums.append(block_checksums(blocks))
            whole = (len(left) + len(blocks)) // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
            end = len(blocks) if done + piece >= rows else whole - len(left)
            write_all(file, left, blocks[:end])
            left = blocks[end:]
        return np.concatenate(sums)

    def _is_done(self, layer: int, path: Path, checksums: Path) -> bool:
        """Whether an earlier writer finished the shard and its bytes still have their checksums."""
        if not (checksums.is_file() and path.is_file()) or path.stat().st_size != self.manifest.shard_bytes(layer):
            return False
        kept = np.frombuffer(checksums.read_bytes(), "<u4")
        return np.array_equal(shard_checksums(path), kept)

    def finish(self) -> None:
        """Puts the completion mark in and gives the store its name, in place of what had it."""
        layers = {layer: replace(cut, shards=self._digests(layer)) for layer, cut in self.manifest.layers.items()}
        self.manifest = replace(self.manifest, layers=layers)
        self._replace_root(group_json({"engram": self.manifest.to_json()}))
        install(self.partial, self.path)

    def _digests(self, layer: int) -> dict[int, str]:
        """CRC-32Cs of the checksums of the shards that are there; a table of zeros lacks a million, which are not asked for."""
        folder = checksum_path(self.partial, layer, 0).parent.parent
        shards = sorted(int(entry.name) for entry in folder.glob("[0-9]*"))
        paths = {shard: checksum_path(self.partial, layer, shard) for shard in shards}
        return {shard: crc_text(path.read_bytes()) for shard, path in paths.items() if path.is_file()}


@contextmanager
def worker_threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads for the length of the block; an error that leaves it cancels the tasks that have not begun."""
    with ThreadPoolExecutor(count, thread_name_prefix=name) as threads:
        try:
            yield threads
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise


def write_all(file: FileIO, *pieces: NDArray[np.uint8]) -> None:
    """Writes the pieces end to end, in one call if it can. It may stop short; a full drive raises OSError at the next."""
    views = [piece.data for piece in pieces if len(piece)]
    while views:
        count = os.writev(file.fileno(), views)
        while views and count >= len(views[0]):
            count -= len(views.pop(0))
        views[:1] = [view[count:] for view in views[:1]]


def shard_checksums(path: Path) -> NDArray[np.uint32]:
    """The checksums (blocks,) of a shard's file, which is read through one small buffer."""
    buffer = np.empty(PIECE_BYTES, np.uint8)
    sums = []
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer.data):
            sums.append(block_checksums(buffer[:count]))
    return np.concatenate(sums)


def require_space(path: Path, needed_bytes: int) -> None:
    """Raises EngramError, before anything is written, when the drive cannot hold what is to come.

    What an interrupted writer left there will be gone on from, or removed.
    """
    place = next(parent for parent in path.absolute().parents if parent.exists())
    left = sum(file.stat().st_blocks * 512 for file in partial_path(path).rglob("*"))
    if (free := shutil.disk_usage(place).free + left) < needed_bytes:
        raise EngramError(f"{path} needs {needed_bytes:,} bytes, but {place} has {free:,} free", hint="free some space")
