"""JSON that others wrote: a text that two readers could read differently is refused, a value is asked for by type."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hashing.base.errors import EngramError
from hashing.base.json_object import JsonObject, parse_json, read_json

REFUSED = {
    "a key twice": (b'{"a": 1, "b": {"x": 1, "x": 2}}', "has the key 'x' twice"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is not JSON"),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), "is not JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "is not JSON"),
    "a NUL in a name": (b'{"a\\u0000b": 1}', "holds a NUL"),
    "half a surrogate pair in a name": (b'{"a\\ud800": 1}', "half a surrogate pair"),
    "half a surrogate pair in a value": (b'{"a": "\\udfff"}', "half a surrogate pair"),
    "a number without end": (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
    "no bottom": (b"[" * 100_000, "is not JSON"),
    "a list": (b"[1]", "holds a list, expected an object"),
    "nothing": (b"", "is not JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_text_that_is_not_one_plain_object_is_refused(name: str) -> None:
    content, message = REFUSED[name]
    with pytest.raises(EngramError, match=rf"^here .*{message}"):
        parse_json(content, "here")


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse_json(b'{"\\ud83d\\ude00": "\\u00e9"}', "here").text("\U0001f600") == "é"


VALUES = b'{"n": 3, "t": true, "x": 1.5, "inf": 1e999, "nan": NaN, "s": "a", "l": [1, "b"], "o": {"y": 1}, "z": null}'
WRONG: dict[str, tuple[Callable[[JsonObject], object], str]] = {
    "missing": (lambda o: o.integer("m"), "here lacks m"),
    "true for a number": (lambda o: o.integer("t"), "here: t is True, expected a whole number"),
    "a fraction": (lambda o: o.integer("x"), "x is 1.5, expected a whole number"),
    "too small": (lambda o: o.integer("n", 4), "n is 3, expected 4 to"),
    "too large": (lambda o: o.integer("n", 0, 2), "n is 3, expected 0 to 2"),
    "infinite": (lambda o: o.number("inf"), "inf is inf, expected a finite number"),
    "not a number": (lambda o: o.number("nan"), "nan is nan, expected a finite number"),
    "text for a number": (lambda o: o.number("s"), "s is 'a', expected a finite number"),
    "number for a text": (lambda o: o.text("n"), "n is 3, expected a text"),
    "a text in a list": (lambda o: o.integers("l"), "l is 'b', expected a whole number"),
    "no list": (lambda o: o.integers("n"), "n is 3, expected a list"),
    "no object": (lambda o: o.child("l"), "l is .*, expected an object"),
    "no objects": (lambda o: o.children("l"), "l is 1, expected a list of objects"),
    "names that are no numbers": (lambda o: list(o.child("o").numbers()), "here: o has the key 'y', expected a whole number"),
    "other names": (lambda o: o.child("o").check_names("x"), "missing or unknown: x, y"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_type_or_range_is_refused(name: str) -> None:
    ask, message = WRONG[name]
    with pytest.raises(EngramError, match=message):
        ask(parse_json(VALUES, "here"))


@pytest.mark.parametrize("name", ["01", "-1", "1.0", "²", "9" * 50, ""])
def test_a_number_has_one_name(name: str) -> None:
    with pytest.raises(EngramError, match="expected a whole number"):
        list(JsonObject("here", {name: 1}).numbers())


def test_a_pipe_and_a_large_file_are_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EngramError, match="pipe is no file"):
        read_json(tmp_path / "pipe", 100)
    with pytest.raises(EngramError, match="is no file"):
        read_json(Path(os.devnull), 100)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(EngramError, match="large is 1,099,511,627,776 bytes long, expected 100 at most"):
        read_json(tmp_path / "large", 100)
    with pytest.raises(EngramError, match="no such file"):
        read_json(tmp_path / "none", 100)
    with pytest.raises(EngramError, match="cannot be read: File name too long"):
        read_json(tmp_path / ("x" * 300), 100)
