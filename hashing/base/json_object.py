"""JSON written by others: refused in one sentence, or read by type and range.

A text is refused when it is not UTF-8, when an object names one member twice, since two readers may then take two values, and
when a name or a value holds a NUL or half a surrogate pair, which no path and no terminal takes. A file is refused unread when
it is larger than it has any reason to be. What was read is a JsonObject, whose values are checked when they are asked for.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from reprlib import Repr
from typing import Any

from hashing.base.errors import EngramError
from hashing.base.regular_file import regular_size

INT64_MAX = 2**63 - 1
MAX_DIGITS = 40  # of an integer: more than any field has, few enough for a message

_shortened = Repr()
_shortened.maxlist, _shortened.maxstring, _shortened.maxother = 8, 100, 100


def brief(value: object) -> str:
    """A value of any size as a message shows it."""
    return _shortened.repr(value)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """The members of a JSON object; `where` says in messages which object it is."""

    where: str
    members: Mapping[str, Any]

    def check_names(self, *expected: str) -> None:
        """Raises EngramError, naming them, for members that are missing or unknown."""
        if different := sorted(set(self.members) ^ set(expected)):
            raise EngramError(f"{self.where} has other keys than expected; missing or unknown: {', '.join(different)}")

    def value(self, name: str) -> Any:
        """Whatever stands there. Raises EngramError when the member is missing."""
        if name not in self.members:
            raise EngramError(f"{self.where} lacks {name}")
        return self.members[name]

    def is_null(self, name: str) -> bool:
        return self.value(name) is None

    def integer(self, name: str, least: int = 0, most: int = INT64_MAX) -> int:
        return self._integer(name, self.value(name), least, most)

    def integers(self, name: str, least: int = 0, most: int = INT64_MAX) -> tuple[int, ...]:
        return tuple(self._integer(name, item, least, most) for item in self._list(name))

    def number(self, name: str) -> float:
        """A finite number."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self.refusal(name, value, "a finite number")
        return float(value)

    def text(self, name: str, form: str = "(?s:.*)") -> str:
        """A text that is of the form (a regular expression)."""
        value = self.value(name)
        if not isinstance(value, str):
            raise self.refusal(name, value, "a text")
        if not re.fullmatch(form, value):
            raise self.refusal(name, value, f"a text of the form {form}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """The members of a list of texts."""
        items = self._list(name)
        for item in items:
            if not isinstance(item, str):
                raise self.refusal(name, item, "a list of texts")
        return tuple(items)

    def child(self, name: str) -> "JsonObject":
        value = self.value(name)
        if not isinstance(value, dict):
            raise self.refusal(name, value, "an object")
        return JsonObject(f"{self.where}: {name}", value)

    def children(self, name: str) -> tuple["JsonObject", ...]:
        """The members of a list of objects."""
        items = self._list(name)
        for item in items:
            if not isinstance(item, dict):
                raise self.refusal(name, item, "a list of objects")
        return tuple(JsonObject(f"{self.where}: {name}[{i}]", item) for i, item in enumerate(items))

    def numbers(self) -> Iterator[tuple[int, str]]:
        """Each member's name as the whole number that it is, with the name. Raises EngramError for another name."""
        for name in self.members:
            if not (name.isascii() and name.isdecimal() and len(name) < MAX_DIGITS and str(int(name)) == name):
                raise EngramError(f"{self.where} has the key {brief(name)}, expected a whole number")
            yield int(name), name

    def _list(self, name: str) -> list[Any]:
        value = self.value(name)
        if not isinstance(value, list):
            raise self.refusal(name, value, "a list")
        return value

    def _integer(self, name: str, value: object, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refusal(name, value, "a whole number")
        if not least <= value <= most:
            raise self.refusal(name, value, f"{least} to {most}")
        return value

    def refusal(self, name: str, value: object, expected: str) -> EngramError:
        return EngramError(f"{self.where}: {name} is {brief(value)}, expected {expected}")


def parse_json(content: bytes, where: str) -> JsonObject:
    """Raises EngramError, beginning with `where`, when the bytes are not one JSON object."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_members, parse_int=_whole)
    except (ValueError, RecursionError) as e:
        raise EngramError(f"{where} is not JSON: {e}") from e
    if not isinstance(value, dict):
        raise EngramError(f"{where} holds a {type(value).__name__}, expected an object")
    return JsonObject(where, value)


def read_json(path: Path, most_bytes: int, where: str = "") -> JsonObject:
    """The object in a file; `where` is what messages about its content begin with, and the path where it is empty.

    Raises EngramError when there is no such file, it is larger than `most_bytes`, or it holds no object.
    """
    if (size := regular_size(path)) > most_bytes:
        raise EngramError(f"{path} is {size:,} bytes long, expected {most_bytes:,} at most")
    try:
        content = path.read_bytes()
    except OSError as e:
        raise EngramError(f"{path} cannot be read: {e.strerror}") from e
    return parse_json(content, where or str(path))


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has the key {brief(next(n for n in members if names.count(n) > 1))} twice")
    for text in (text for pair in pairs for text in pair if isinstance(text, str)):
        if "\0" in text or not (text.isascii() or _is_unicode(text)):
            raise ValueError(f"{brief(text)} holds a NUL or half a surrogate pair")
    return members


def _is_unicode(text: str) -> bool:
    """Whether no character is half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)
