"""Documents of text, streamed from files.

A document is a whole text file, a line of JSONL, or a row of Parquet; a text file longer than `MAX_DOCUMENT_CHARS` becomes
several documents, cut at line ends, so that memory does not grow with the corpus. Plain, gzip and zstd files are read alike.

A document's side (training or validation) follows from its text alone, so the same file falls on the same side whatever it is
called and wherever it lies, and a duplicate never leaks from one side to the other.
"""

import gzip
import io
import json
import re
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Literal, cast

from hashing.base.errors import EngramError, UsageError
from hashing.base.path_argument import check_path

MAX_DOCUMENT_CHARS = 1 << 20
VALIDATION_SHARE = 32  # one document in so many is kept for validation
SNIFFED_BYTES = 8192

Side = Literal["train", "validation"]


class NotTextError(EngramError):
    """A file that was taken for text is something else."""


SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair: no character, and no byte sequence stands for it


@dataclass(frozen=True, slots=True)
class Document:
    name: str
    text: str

    @property
    def side(self) -> Side:
        digest = blake2b(self.text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return "validation" if int.from_bytes(digest, "little") % VALIDATION_SHARE == 0 else "train"


@dataclass(frozen=True, slots=True)
class Corpus:
    """Text under files and folders; with no path, the source of the Python standard library on this machine.

    A file named outright must be readable text; in a folder, hidden files and files that are not UTF-8 text are passed over.
    """

    paths: tuple[Path, ...] = ()
    text_key: str = "text"
    text_column: str = "text"

    def __post_init__(self) -> None:
        """Raises UsageError for texts, and for one path, in place of a tuple of Paths."""
        if not isinstance(self.paths, tuple):
            raise UsageError(f"Corpus got {self.paths!r}, expected a tuple of Paths", hint=f'(Path("{self.paths}"),)')
        for path in self.paths:
            check_path(path, "Corpus")

    @property
    def roots(self) -> tuple[Path, ...]:
        return self.paths or (Path(sysconfig.get_path("stdlib")),)

    def files(self) -> list[tuple[Path, bool]]:
        """Every file with whether it was named outright, folders walked in sorted order.

        Raises EngramError when a path does not exist, is neither file nor folder, or nothing is found.
        """
        found: list[tuple[Path, bool]] = []
        for root in self.roots:
            if not root.exists():
                raise EngramError(f"no such file or folder: {root}", hint="name a text file or a folder of them")
            refuse_pipe(root)
            found += [(file, False) for file in self._walk(root)] if root.is_dir() else [(root, True)]
        if not found:
            raise EngramError(f"the corpus is empty: no file in {', '.join(map(str, self.roots))}")
        return found

    def _walk(self, root: Path) -> list[Path]:
        pattern = "*" if self.paths else "*.py"
        skipped = {"site-packages", "dist-packages", "__pycache__"}
        inside = (file for file in sorted(root.rglob(pattern)) if file.is_file())
        return [
            file for file in inside if not any(part.startswith(".") or part in skipped for part in file.relative_to(root).parts)
        ]

    def documents(self) -> Iterator[Document]:
        """Streams every document in a fixed order.

        Raises EngramError for unreadable data, for a file that changes while it is read, or when there is no text at all.
        """
        empty = True
        for file, named in self.files():
            before = _state(file)
            for document in self._read(file, named):
                if document.text:
                    empty = False
                    yield document
            if _state(file) != before:
                raise EngramError(f"{file} changed while it was read", hint="read a copy that nothing writes to")
        if empty:
            raise EngramError(f"the corpus is empty: no text in {', '.join(map(str, self.roots))}")

    def _read(self, file: Path, named: bool) -> Iterator[Document]:
        kind = content_suffix(file)
        if kind == ".parquet":
            yield from self._read_parquet(file)
        elif named or is_text(file):
            try:
                yield from self._read_jsonl(file) if kind in {".jsonl", ".ndjson"} else _read_plain(file)
            except NotTextError:
                if named:
                    raise

    def _read_jsonl(self, file: Path) -> Iterator[Document]:
        with open_text(file) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield Document(f"{file}:{number}", self._json_text(line, f"{file}:{number}"))

    def _json_text(self, line: str, where: str) -> str:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as e:
            raise EngramError(f"{where} is not JSON: {e.msg} at column {e.colno}") from e
        except (ValueError, RecursionError) as e:
            raise EngramError(f"{where} is not JSON that can be read: {e}") from e
        text = record.get(self.text_key) if isinstance(record, dict) else None
        if not isinstance(text, str):
            keys = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise EngramError(f'{where} has no text under "{self.text_key}"; found {keys}', hint="name the key with --text-key")
        if SURROGATE.search(text):
            raise EngramError(f"{where} is no text: it holds half of a surrogate pair")
        return text

    def _read_parquet(self, file: Path) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as table:
                if self.text_column not in table.schema_arrow.names:
                    names = ", ".join(table.schema_arrow.names)
                    raise EngramError(
                        f'{file} has no column "{self.text_column}"; it has {names}', hint="name the column with --text-column"
                    )
                rows = 0
                for batch in table.iter_batches(batch_size=256, columns=[self.text_column]):
                    for text in batch.column(0).to_pylist():
                        rows += 1
                        if text is not None and not isinstance(text, str):
                            raise EngramError(f'{file}: column "{self.text_column}" holds {type(text).__name__}, expected text')
                        yield Document(f"{file}:{rows}", text or "")
        except pa.ArrowInvalid as e:
            raise EngramError(f"{file} cannot be read as Parquet: {str(e).splitlines()[0]}") from e


def refuse_pipe(path: Path) -> None:
    """Raises EngramError for what is neither a file nor a folder: reading a pipe may wait for ever."""
    if not path.is_file() and not path.is_dir():
        raise EngramError(f"{path} is a pipe, socket or device, expected a file or a folder", hint="write it to a file first")


def _state(file: Path) -> tuple[int, int]:
    """Size and time of the last change."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def content_suffix(file: Path) -> str:
    """The file's ending, looking through a compression's."""
    suffixes = [s.lower() for s in file.suffixes]
    if suffixes and suffixes[-1] in {".gz", ".zst"}:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_bytes(file: Path) -> Iterator[IO[bytes]]:
    """Decompressed. Raises EngramError when the file is damaged."""
    import zlib

    import zstandard

    try:
        match file.suffix.lower():
            case ".gz":
                with gzip.open(file, "rb") as stream:
                    yield cast("IO[bytes]", stream)
            case ".zst":
                with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
                    yield stream
            case _:
                with file.open("rb") as raw:
                    yield raw
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as e:
        raise EngramError(f"{file} is damaged: {e}") from e


@contextmanager
def open_text(file: Path) -> Iterator[io.TextIOWrapper]:
    """The file's text, decompressed. Raises EngramError when it is not UTF-8 or is damaged."""
    try:
        with open_bytes(file) as stream:
            yield io.TextIOWrapper(stream, encoding="utf-8", newline="")
    except UnicodeDecodeError as e:
        raise NotTextError(f"{file} is not UTF-8 text: byte 0x{e.object[e.start]:02x} cannot be decoded") from e


def is_text(file: Path) -> bool:
    """Whether the file begins like UTF-8 text (a character cut off at the end of the sample does not count against it)."""
    with open_bytes(file) as stream:
        sample = stream.read(SNIFFED_BYTES)
    if b"\0" in sample:
        return False
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as e:
        return len(sample) == SNIFFED_BYTES and e.start > SNIFFED_BYTES - 4
    return True


def _read_plain(file: Path) -> Iterator[Document]:
    with open_text(file) as stream:
        text = stream.read(MAX_DOCUMENT_CHARS)
        if "\0" in text:
            raise NotTextError(f"{file} is not text: it holds NUL bytes")
        parts = 0
        while len(text) == MAX_DOCUMENT_CHARS:
            cut = text.rfind("\n") + 1 or len(text)
            yield Document(f"{file}#{parts}", text[:cut])
            parts += 1
            text = text[cut:] + stream.read(MAX_DOCUMENT_CHARS - len(text[cut:]))
        yield Document(f"{file}#{parts}" if parts else str(file), text)
