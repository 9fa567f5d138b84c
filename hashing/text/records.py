"""Texts in files of records: lines of JSON, JSON arrays, Parquet.

A record is a text itself, or an object with a text under a key; in Parquet it is a row with a text in a column. Files of JSON
are read value by value through a window, so memory does not grow with an array.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any, TextIO

from hashing.text.reading import NoTextsError, Remark
from hashing.text.text_file import At

WINDOW_CHARS = 1 << 18  # of a JSON file, read at a time
MAX_VALUE_CHARS = 1 << 27  # of one value in a JSON file
CUT_CHARS = 16  # an error so near the window's end may be the cut's
PARQUET_ROWS = 256  # at a time
NAMES_SHOWN = 8
WHITE_SPACE = re.compile(r"[ \t\n\r]*")  # as JSON has it

Texts = Iterator[tuple[str, str]]  # the name of each text, with the text


def text_of(record: Any, key: str, where: str) -> str:
    """The text that a record is or has. Raises NoTextsError when it has none."""
    text = record.get(key) if isinstance(record, dict) else record
    if not isinstance(text, str):
        found = _names(record) if isinstance(record, dict) else type(record).__name__
        raise NoTextsError(
            Remark.NO_TEXTS, f'{where} has no text under "{key}"; found {found}', hint="name the key with --text-key"
        )
    try:
        text.encode()  # several times as fast as a search
    except UnicodeEncodeError as e:
        raise NoTextsError(Remark.NOT_JSON, f"{where} is no text: it holds half of a surrogate pair") from e
    return text


def json_lines(lines: TextIO, path: Path, key: str) -> Texts:
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, text_of(_decoded(line, where), key, where)


def _decoded(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except JSONDecodeError as e:
        raise NoTextsError(Remark.NOT_JSON, f"{where} is not JSON: {e.msg} at column {e.colno}") from e
    except (ValueError, RecursionError) as e:
        raise NoTextsError(Remark.NOT_JSON, f"{where} is not JSON that can be read: {e}") from e


def _names(record: dict[str, Any]) -> str:
    names = ", ".join(islice(record, NAMES_SHOWN))
    return f"{names} and {len(record) - NAMES_SHOWN:,} more keys" if len(record) > NAMES_SHOWN else names or "no key"


class Window:
    """The part of a JSON file that is looked at, moved along it."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self._stream, self._path, self._decoder = stream, path, json.JSONDecoder()
        self._text, self._at, self._before = "", 0, 0  # position in the text, and characters of the file before it

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            space = WHITE_SPACE.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text) or not self._extend():
                return self._text[self._at : self._at + 1]

    def take(self, character: str) -> bool:
        """Whether that one comes next, which is then passed."""
        found = self.peek() == character
        self._at += found
        return found

    def value(self) -> Any:
        """The value that comes next. Raises NoTextsError where there is none, or one of more than `MAX_VALUE_CHARS`."""
        self.peek()
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._text, self._at)
            except JSONDecodeError as e:
                cut = e.msg.startswith("Unterminated string") or e.pos >= len(self._text) - CUT_CHARS
                if len(self._text) - self._at > MAX_VALUE_CHARS:
                    raise self.fault(f"a value of more than {MAX_VALUE_CHARS:,} characters begins there") from e
                if not cut or not self._extend():
                    raise self.fault(e.msg, e.pos) from e
            except (ValueError, RecursionError) as e:
                raise self.fault(str(e)) from e
            else:
                return value

    def fault(self, message: str, at: int | None = None) -> NoTextsError:
        place = self._before + (self._at if at is None else at) + 1
        return NoTextsError(Remark.NOT_JSON, f"{self._path} is not JSON that can be read: {message}, at character {place:,}")

    def _extend(self) -> bool:
        """Drops what is passed, and reads as much again as is left; False at the end of the file, where nothing changes."""
        rest = self._text[self._at :]
        if not (fresh := self._stream.read(max(WINDOW_CHARS, len(rest)))):
            return False
        self._before += self._at
        self._text, self._at = rest + fresh, 0
        return True


def json_values(stream: TextIO, path: Path, key: str) -> Texts:
    """The members of a JSON array, or the values that the file holds one after another: mostly a single one."""
    window = Window(stream, path)
    array = window.take("[")
    number, more = 0, not window.take("]") if array else window.peek() != ""
    while more:
        where = f"{path}[{number}]" if array or number else str(path)
        yield where, text_of(window.value(), key, where)
        number += 1
        more = window.take(",") if array else window.peek() != ""
        if array and not more and not window.take("]"):
            raise window.fault('expected "," or "]" after a member of the array')
    if window.peek():
        raise window.fault("something follows the array")


def parquet_rows(path: Path, column: str, at: At) -> Texts:
    """`at` hears of the share of the file's bytes that is the share of its rows.

    Raises NoTextsError when there is no such column, it holds no texts, or the file is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            if column not in table.schema_arrow.names:
                names = ", ".join(table.schema_arrow.names)
                message = f'{path} has no column "{column}"; it has {names}'
                raise NoTextsError(Remark.NO_TEXTS, message, hint="name the column with --text-column")
            rows, row_bytes = 0, path.stat().st_size / max(1, table.metadata.num_rows)
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=[column]):
                at(int((rows + len(batch)) * row_bytes))
                for text in batch.column(0).to_pylist():
                    rows += 1
                    if text is not None and not isinstance(text, str):
                        message = f'{path}: column "{column}" holds {type(text).__name__}, expected text'
                        raise NoTextsError(Remark.NO_TEXTS, message)
                    yield f"{path}:{rows}", text or ""
    except pa.ArrowInvalid as e:
        message = f"{path} cannot be read as Parquet: {str(e).splitlines()[0]}"
        raise NoTextsError(Remark.DAMAGED, message) from e
