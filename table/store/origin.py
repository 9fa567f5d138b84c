"""Origin: the checkpoint that tables came from, and what is kept of its files so that an export gives back the same bytes.

A file with tables is kept without the tensors that hold them, which are cut out: their bytes are the layers' rows. What is kept
lies in the store as one chunk a file, under its checksum; where each cut tensor goes is in the kept header.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from hashing.base.errors import EngramError
from hashing.base.json_object import JsonObject
from table.store.checksum import CRC_TEXT, crc32c, extend_crc32c

Plane = Literal["codes", "scales", "table_scale"]  # of a record, or the number kept beside the table

MAX_NAME_BYTES = 255  # of a file, on the file systems in use
PIECE_BYTES = 8 << 20


def is_file_name(name: str) -> bool:
    """Whether it names a file in a folder, and nothing outside it."""
    return Path(name).name == name and name not in {"", ".", ".."} and "\0" not in name and len(name.encode()) <= MAX_NAME_BYTES


@dataclass(frozen=True, slots=True)
class Cut:
    """A tensor of an origin file whose bytes are in a layer's table: rows from `first_row` on of one of its planes."""

    tensor: str
    layer: int
    plane: Plane
    first_row: int = 0

    @classmethod
    def from_json(cls, content: JsonObject) -> "Cut":
        content.check_names("tensor", "layer", "plane", "first_row")
        if (plane := content.text("plane")) not in get_args(Plane):
            raise content.refusal("plane", plane, f"one of {', '.join(get_args(Plane))}")
        return cls(content.text("tensor"), content.integer("layer"), cast(Plane, plane), content.integer("first_row"))


@dataclass(frozen=True, slots=True)
class OriginFile:
    """A file of the checkpoint: what is kept of it, and the tensors that are cut out."""

    name: str
    kept_bytes: int
    crc32c: str  # of the kept bytes
    cuts: tuple[Cut, ...] = ()

    @classmethod
    def from_json(cls, content: JsonObject) -> "OriginFile":
        content.check_names("name", "kept_bytes", "crc32c", "cuts")
        if not is_file_name(name := content.text("name")):
            raise content.refusal("name", name, "the name of a file in a folder")
        cuts = tuple(Cut.from_json(cut) for cut in content.children("cuts"))
        return cls(name, content.integer("kept_bytes", least=1), content.text("crc32c", CRC_TEXT), cuts)


@dataclass(frozen=True, slots=True)
class Origin:
    """The checkpoint that tables came from. Raises EngramError when two of its files have one name, or two cuts one tensor."""

    kind: str
    name: str
    files: tuple[OriginFile, ...]

    def __post_init__(self) -> None:
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise EngramError("two files of the origin have the same name")
        for file in self.files:
            if len({cut.tensor for cut in file.cuts}) != len(file.cuts):
                raise EngramError(f"a tensor of {file.name} is cut out twice")

    @classmethod
    def from_json(cls, content: JsonObject) -> "Origin":
        content.check_names("kind", "name", "files")
        files = tuple(OriginFile.from_json(file) for file in content.children("files"))
        return cls(content.text("kind"), content.text("name"), files)


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of the checkpoint without the bytes of its cut tensors."""

    path: Path
    ranges: tuple[tuple[int, int], ...]  # kept bytes, begin ≤ offset < end
    cuts: tuple[Cut, ...]

    @classmethod
    def whole(cls, path: Path) -> "KeptFile":
        return cls(path, ((0, path.stat().st_size),), ())

    @classmethod
    def without(cls, path: Path, size: int, holes: Sequence[tuple[int, int]], cuts: tuple[Cut, ...]) -> "KeptFile":
        """A file of `size` bytes without those from begin up to end of each hole; holes do not overlap."""
        edges = [0, *(edge for hole in sorted(holes) for edge in hole), size]
        ranges = zip(edges[::2], edges[1::2], strict=True)
        return cls(path, tuple((begin, end) for begin, end in ranges if begin < end), cuts)

    @property
    def kept_bytes(self) -> int:
        return sum(end - begin for begin, end in self.ranges)

    def pieces(self) -> Iterator[bytes]:
        """The kept bytes in order."""
        with self.path.open("rb") as file:
            for begin, end in self.ranges:
                file.seek(begin)
                for done in range(begin, end, PIECE_BYTES):
                    yield file.read(min(PIECE_BYTES, end - done))

    def described(self) -> OriginFile:
        """What the manifest says of it; reads all that is kept."""
        return OriginFile(self.path.name, self.kept_bytes, _crc_text(self.pieces()), self.cuts)


def write_kept(chunk: Path, file: OriginFile, pieces: Iterable[bytes]) -> None:
    """Writes the kept bytes of a file into a store. Raises EngramError when they are not those that the manifest describes."""
    chunk.parent.mkdir(exist_ok=True)
    with chunk.open("wb") as target:
        for piece in pieces:
            target.write(piece)
    if _chunk_crc(chunk) != file.crc32c:
        raise EngramError(f"{file.name} changed while it was read: what was kept of it is not what was there before")


def check_kept(chunk: Path, file: OriginFile) -> None:
    """Raises EngramError when the kept bytes of a file are missing or altered."""
    whole = chunk.is_file() and chunk.stat().st_size == file.kept_bytes
    if not whole or _chunk_crc(chunk) != file.crc32c:
        raise EngramError(f"what was kept of {file.name} is missing or was altered ({chunk})")


def chunk_pieces(chunk: Path) -> Iterator[bytes]:
    with chunk.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _chunk_crc(chunk: Path) -> str:
    return _crc_text(chunk_pieces(chunk))


def _crc_text(pieces: Iterable[bytes]) -> str:
    crc = crc32c(b"")
    for piece in pieces:
        crc = extend_crc32c(crc, piece)
    return f"{crc:08x}"
