"""A corpus that changes under the reader is noticed, not read half old and half new."""

from pathlib import Path

import pytest

from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    documents = Corpus((path,)).documents()
    assert next(documents).text == "one"
    with path.open("a") as file:
        file.write('{"text": "three"}\n')
    with pytest.raises(EngramError, match=r"lines\.jsonl changed while it was read"):
        list(documents)
