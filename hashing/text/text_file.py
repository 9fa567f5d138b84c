"""Text files: what a file is, told from its ending and its first bytes, and its characters, decompressed and decoded.

A byte-order mark says what a file is in. Without one it is UTF-8, or else in the encoding that the caller names for such files.
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from hashing.text.reading import NoTextsError, Remark

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SNIFFED_BYTES = 8192
SCANNED_BYTES = 1 << 20  # at a time
READ_BYTES = 1 << 16  # asked of the system at a time
COMPRESSED_BYTES = 1 << 14  # taken at a time: a hostile file makes some ten thousand times as many of them
UTF8 = "utf-8"
# The longer first: UTF-32's little-endian mark begins like UTF-16's.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
At = Callable[[int], None]  # is told how many bytes of a file have been read
HTML_BEGINNINGS = ("<!doctype html", "<html")
SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair: no character, and no byte sequence stands for it


@dataclass(frozen=True, slots=True)
class TextFile:
    path: Path
    encoding: str
    html: bool = False

    @classmethod
    def recognise(cls, path: Path, fallback: str = "") -> "TextFile":
        """`fallback` is the encoding of a file that has no byte-order mark and is not UTF-8, which is then looked at whole.

        Raises NoTextsError when the file does not begin like text, or its compression is damaged.
        """
        with open_bytes(path) as stream:
            sample = stream.read(SNIFFED_BYTES)
        mark = next((mark for mark in MARKS if sample.startswith(mark)), None)
        if mark is None and fallback and not _decodes(path, UTF8):
            encoding = fallback
            if not _decodes(path, fallback):
                raise NoTextsError(Remark.NOT_TEXT, f"{path} is neither UTF-8 text nor text in {fallback}")
        else:
            encoding = MARKS[mark] if mark else UTF8
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(sample, final=len(sample) < SNIFFED_BYTES)
        except UnicodeDecodeError as e:
            raise undecodable(path, encoding, e, binary=b"\0" in sample and mark is None) from e
        refuse_nul(path, text)
        ending = content_suffix(path) in {".html", ".htm", ".xhtml"}
        return cls(path, encoding, ending or text.lstrip()[:14].lower().startswith(HTML_BEGINNINGS))

    @contextmanager
    def open(self, at: At) -> Iterator[io.TextIOWrapper]:
        """The file's text, line ends as they are. Raises NoTextsError where it cannot be decoded."""
        try:
            with open_bytes(self.path, at) as stream:
                yield io.TextIOWrapper(stream, encoding=self.encoding, newline="")
        except UnicodeDecodeError as e:
            raise undecodable(self.path, self.encoding, e) from e


def undecodable(path: Path, encoding: str, error: UnicodeDecodeError, binary: bool = False) -> NoTextsError:
    """The refusal of a file whose bytes are not in the encoding that it was taken for."""
    byte = f"byte 0x{error.object[error.start]:02x} cannot be decoded"
    if encoding == UTF8:
        hint = "--encoding NAME says which encoding it is in, as in --encoding latin-1"
        return NoTextsError(Remark.NOT_TEXT if binary else Remark.NOT_UTF8, f"{path} is not UTF-8 text: {byte}", hint)
    return NoTextsError(Remark.NOT_TEXT, f"{path} is not UTF-8 text, nor text in {encoding}, as which it was read: {byte}")


def refuse_nul(path: Path, text: str) -> None:
    """Raises NoTextsError for text that holds the character NUL, as decoded binary data does and no text."""
    if "\0" in text:
        raise NoTextsError(Remark.NOT_TEXT, f"{path} is not text: it holds NUL bytes")


def _decodes(path: Path, encoding: str) -> bool:
    """Whether the whole file is text in the encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    with open_bytes(path) as stream:
        try:
            while chunk := stream.read(SCANNED_BYTES):
                if "\0" in decoder.decode(chunk):
                    return False
            decoder.decode(b"", final=True)
        except UnicodeError:
            return False
    return True


def content_suffix(file: Path) -> str:
    """The file's ending, looking through a compression's."""
    suffixes = [s.lower() for s in file.suffixes]
    if suffixes and suffixes[-1] in {".gz", ".zst"}:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


class Followed(io.FileIO):
    """A file that says how far it has been read."""

    def __init__(self, path: Path, at: At) -> None:
        super().__init__(path)
        self._at = at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = super().readinto(buffer)
        self._at(self.tell())
        return count


@contextmanager
def open_bytes(file: Path, at: At = lambda _: None) -> Iterator[IO[bytes]]:
    """Decompressed; `at` hears of bytes as they lie in the file. Raises NoTextsError when it is damaged or was cut off."""
    import zstandard

    try:
        with io.BufferedReader(Followed(file, at), READ_BYTES) as raw:
            match file.suffix.lower():
                case ".gz":
                    with gzip.open(raw, "rb") as stream:
                        yield cast("IO[bytes]", stream)
                case ".zst":
                    with io.BufferedReader(Chunks(_frames(raw))) as stream:
                        yield stream
                case _:
                    yield raw
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as e:
        raise NoTextsError(Remark.DAMAGED, f"{file} is damaged: {e}") from e


def _frames(raw: IO[bytes]) -> Iterator[bytes]:
    """The text of the zstd frames of a file, one after another. Raises EOFError when the file ends within one.

    The library's own reader takes the end of a file that was cut off for the end of its text.
    """
    import zstandard

    decompressor = zstandard.ZstdDecompressor()
    frame = None
    while compressed := raw.read(COMPRESSED_BYTES):
        while compressed:
            frame = frame or decompressor.decompressobj()
            yield frame.decompress(compressed)
            compressed = b""
            if frame.eof:
                compressed, frame = frame.unused_data, None
    if frame is not None:
        raise EOFError("it ends within a zstd frame")


class Chunks(io.RawIOBase):
    """Pieces of bytes, read as one file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        while not self._rest:
            if (chunk := next(self._chunks, None)) is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._rest))
        target[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
