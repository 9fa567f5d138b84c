"""Documents of text, streamed from files.

A document is a whole text file, a value of a JSON file, a line of JSONL, or a row of Parquet; a text file longer than
`MAX_DOCUMENT_CHARS` becomes several documents, cut at line ends, so that memory does not grow with the corpus. Plain, gzip and
zstd files are read alike. Where documents are few they are split further, and which side one is on follows from its text
(`hashing/text/sides.py`), unless files are named that are the whole validation side.

What a run remembers of its corpus is the Corpus itself as sorted JSON, with absolute paths and a format number.
"""

import json
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from hashing.base.atomic import write_text
from hashing.base.errors import EngramError, UsageError
from hashing.base.json_object import read_json
from hashing.base.path_argument import check_path
from hashing.text.reading import NoTextsError, Reading, Remark
from hashing.text.records import Texts, json_lines, json_values, parquet_rows
from hashing.text.sides import Side, divide, position
from hashing.text.text_file import TextFile, content_suffix, refuse_nul

MAX_DOCUMENT_CHARS = 1 << 20
VALIDATION_SHARE = 1 / 32
INSTALLED = {"site-packages", "dist-packages", "__pycache__"}
CORPUS_FORMAT = 1
EXPLAINED = {Remark.NO_TEXTS, Remark.NOT_JSON, Remark.DAMAGED}  # where the name of a file alone would not tell what is wrong
MAX_BYTES = 1 << 24  # of a saved corpus, which holds paths and a few short values


@dataclass(frozen=True, slots=True)
class Document:
    name: str
    text: str
    side: Side


@dataclass(frozen=True, slots=True)
class Corpus:
    """Text under files and folders; with no path, the source of the Python standard library on this machine.

    A file named outright must be readable text; in a folder, what is none is passed over, and `reading` tells so.
    """

    paths: tuple[Path, ...] = ()
    text_key: str = "text"
    text_column: str = "text"
    encoding: str = ""  # of files that are not UTF-8 and have no byte-order mark; "" passes them over
    validation: tuple[Path, ...] = ()  # the whole validation side; with none, it is a share of the documents
    validation_share: float = VALIDATION_SHARE
    reading: Reading = field(default_factory=Reading, init=False, compare=False, repr=False)  # what the last pass came to

    def __post_init__(self) -> None:
        for paths in (self.paths, self.validation):
            if not isinstance(paths, tuple):
                raise UsageError(f"Corpus got {paths!r}, expected a tuple of Paths", hint=f'(Path("{paths}"),)')
            for path in paths:
                check_path(path, "Corpus")
        if not 0 < self.validation_share < 1:
            raise UsageError(
                f"a validation share of {self.validation_share:g} leaves one side empty", hint="it is a part of 1, as in 0.05"
            )
        if self.encoding:
            check_encoding(self.encoding)

    @property
    def roots(self) -> tuple[Path, ...]:
        return self.paths or (Path(sysconfig.get_path("stdlib")),)

    @property
    def described(self) -> str:
        """Where it lies, as a person would say it."""
        places = _listed(self.paths) if self.paths else "the Python standard library's source"
        return f"{places}, validated on {_listed(self.validation)}" if self.validation else places

    @property
    def options(self) -> dict[str, str]:
        """How its files are read and divided, by the names of the options that say so."""
        names = ("text_key", "text_column", "encoding", "validation", "validation_share")
        return {name: str(getattr(self, name)) for name in names}

    def save(self, path: Path) -> None:
        members = asdict(self) | {"format": CORPUS_FORMAT}
        del members["reading"]
        for name in ("paths", "validation"):
            members[name] = [str(given.absolute()) for given in members[name]]
        write_text(path, json.dumps(members, sort_keys=True, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Corpus":
        """Raises EngramError when the file is missing, or is no corpus that this version knows."""
        members = read_json(path, MAX_BYTES)
        members.check_names("encoding", "format", "paths", "text_column", "text_key", "validation", "validation_share")
        members.integer("format", CORPUS_FORMAT, CORPUS_FORMAT)
        try:
            return cls(
                paths=tuple(map(Path, members.texts("paths"))),
                text_key=members.text("text_key"),
                text_column=members.text("text_column"),
                encoding=members.text("encoding"),
                validation=tuple(map(Path, members.texts("validation"))),
                validation_share=members.number("validation_share"),
            )
        except UsageError as e:
            raise EngramError(f"{path}: {e}", hint=e.hint) from e

    @property
    def file_bytes(self) -> int:
        """How large its files are, together. Raises EngramError as `files` does."""
        return sum(file.stat().st_size for file, _ in self.files())

    def files(self) -> list[tuple[Path, bool]]:
        """Every file with whether it was named outright, folders walked in sorted order, validation files first.

        Raises EngramError when a path does not exist, is neither file nor folder, or nothing is found.
        """
        own = Reading()
        given = self._files_under(self.validation, own) if self.validation else []
        return given + self._training_files(given, own)

    def documents(self) -> Iterator[Document]:
        """Streams every document in a fixed order, and leaves in `reading` what there is to say of it.

        Raises EngramError for unreadable data, for a file that changes while it is read, or when there is no text at all.
        """
        self.reading.begin()
        yield from self._with_given_validation() if self.validation else self._divided()

    def _divided(self) -> Iterator[Document]:
        files = self._files_under(self.roots, self.reading)
        division = divide(lambda: (text for _, text in self._texts(files, self.roots, Reading())), self.validation_share)
        for name, text in self._texts(files, self.roots, self.reading):
            pieces = list(division.pieces(text)) if division.piece_chars else [text]
            if len(pieces) > 1:
                self.reading.add(Remark.SPLIT, name)
                self.reading.pieces += len(pieces)
            for number, piece in enumerate(pieces):
                yield Document(f"{name}#{number}" if len(pieces) > 1 else name, piece, division.side(piece))

    def _with_given_validation(self) -> Iterator[Document]:
        """The validation files' documents and then the others, in memory that grows by a number for each of the former."""
        files = self._files_under(self.validation, self.reading)
        validating = set()
        for name, text in self._texts(files, self.validation, self.reading):
            validating.add(position(text))
            yield Document(name, text, "validation")
        for name, text in self._texts(self._training_files(files, self.reading), self.roots, self.reading):
            if position(text) in validating:
                self.reading.add(Remark.DUPLICATE, name)
            else:
                yield Document(name, text, "train")

    def _training_files(self, validating: list[tuple[Path, bool]], reading: Reading) -> list[tuple[Path, bool]]:
        taken = {file.resolve() for file, _ in validating}
        files = [(file, named) for file, named in self._files_under(self.roots, reading) if file.resolve() not in taken]
        if not files:
            raise EngramError(f"nothing is left to train on: every file of {_listed(self.roots)} is a validation file")
        return files

    def _files_under(self, roots: tuple[Path, ...], reading: Reading) -> list[tuple[Path, bool]]:
        found: list[tuple[Path, bool]] = []
        for root in roots:
            if not root.exists():
                raise EngramError(f"no such file or folder: {root}", hint="name a text file or a folder of them")
            refuse_pipe(root)
            found += [(file, False) for file in self._walk(root, reading)] if root.is_dir() else [(root, True)]
        if not found:
            raise EngramError(f"the corpus is empty: no file in {_listed(roots)}")
        return found

    def _walk(self, root: Path, reading: Reading) -> Iterator[Path]:
        if root not in self.paths + self.validation:
            yield from _python_source(root)
            return
        for file, passed_over in _walked(str(root)):
            if passed_over:
                reading.add(Remark.HIDDEN, str(Path(file)))
            else:
                yield Path(file)

    def _texts(self, files: list[tuple[Path, bool]], roots: tuple[Path, ...], reading: Reading) -> Texts:
        """Every text that is not empty, with its name, of files found under the roots."""
        empty = True
        for file, named in files:
            before = _state(file)
            for name, text in self._read(file, named, reading):
                if text:
                    empty = False
                    yield name, text
            if _state(file) != before:
                raise EngramError(f"{file} changed while it was read", hint="read a copy that nothing writes to")
            reading.finish(before[0])
        if empty:
            raise EngramError(f"the corpus is empty: no text in {_listed(roots)}", hint="; ".join(reading.notes()))

    def _read(self, file: Path, named: bool, reading: Reading) -> Texts:
        """The texts of one file; those of a folder's up to the first fault."""
        read = 0
        try:
            for record in self._records(file, named, reading):
                yield record
                read += 1
        except NoTextsError as e:
            if named:
                raise
            if read:
                reading.add(Remark.BROKEN_OFF, str(e))
            else:
                reading.add(e.remark, str(e) if e.remark in EXPLAINED else str(file))

    def _records(self, file: Path, named: bool, reading: Reading) -> Texts:
        if (kind := content_suffix(file)) == ".parquet":
            yield from parquet_rows(file, self.text_column, reading.at)
            return
        source = TextFile.recognise(file, self.encoding)
        if source.html and not named:
            raise NoTextsError(Remark.HTML, f"{file} is HTML")
        if source.html:
            reading.add(Remark.MARKUP, str(file))
        if source.encoding not in {"utf-8", "utf-8-sig"}:
            reading.add(Remark.DECODED, f"{file} ({source.encoding})")
        with source.open(reading.at) as stream:
            if kind in {".jsonl", ".ndjson"}:
                yield from json_lines(stream, file, self.text_key)
            elif kind == ".json":
                yield from json_values(stream, file, self.text_key)
            else:
                yield from _parts(stream, file)


def _passed_over(name: str) -> bool:
    """Whether a folder or file of that name is hidden, or is of installed packages."""
    return name.startswith(".") or name in INSTALLED


def _walked(folder: str, passed_over: bool = False) -> Iterator[tuple[str, bool]]:
    """Every file under a folder, in the order of their paths' parts, with whether it or a folder around it is passed over.

    A folder behind a symbolic link is not walked, and one that may not be read has no files.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return
    for entry in found:
        over = passed_over or _passed_over(entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _walked(entry.path, over)
        elif entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path):
            yield entry.path, over


def _python_source(root: Path) -> list[Path]:
    """In sorted order. Installed packages, mostly many times as many, are not walked through."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _passed_over(name)]
        found += [Path(folder, name) for name in files if name.endswith(".py") and not _passed_over(name)]
    return sorted(file for file in found if file.is_file())


def check_encoding(name: str) -> None:
    """Raises UsageError for a name that is of no encoding of text."""
    from difflib import get_close_matches
    from encodings.aliases import aliases

    try:
        b"a".decode(name)
    except UnicodeError:
        return  # known, though it takes more than a byte
    except (LookupError, ValueError) as e:
        near = get_close_matches(name.lower().replace("-", "_"), aliases, 1)
        hint = f"did you mean {near[0]}?" if near else "the names are Python's, as latin-1, cp1252, utf-16-le or shift_jis"
        raise UsageError(f'no encoding of text is called "{name}"', hint=hint) from e


def refuse_pipe(path: Path) -> None:
    """Raises EngramError for what is neither a file nor a folder: reading a pipe may wait for ever."""
    if not path.is_file() and not path.is_dir():
        raise EngramError(f"{path} is a pipe, socket or device, expected a file or a folder", hint="write it to a file first")


def _state(file: Path) -> tuple[int, int]:
    """Size and time of the last change."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _listed(paths: tuple[Path, ...]) -> str:
    return ", ".join(map(str, paths))


def _parts(stream: TextIO, file: Path) -> Texts:
    """A text of any length, in parts that end at line ends where they can."""
    text = stream.read(MAX_DOCUMENT_CHARS)
    parts = 0
    while len(text) == MAX_DOCUMENT_CHARS:
        refuse_nul(file, text)
        cut = text.rfind("\n") + 1 or len(text)
        yield f"{file}#{parts}", text[:cut]
        parts += 1
        text = text[cut:] + stream.read(MAX_DOCUMENT_CHARS - len(text[cut:]))
    refuse_nul(file, text)
    yield f"{file}#{parts}" if parts else str(file), text
