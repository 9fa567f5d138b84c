"""Text of another domain than a corpus: English about software, which every installed package brings along.

The default corpus is source code and leaves installed packages out, so nothing of it was trained on. Which packages there are
differs from machine to machine: a sweep keeps the texts that it began with.
"""

from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path

from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus
from runtime.judged_text import texts_of

CHARACTERS = 100_000  # in all
LEAST_CHARACTERS = 2_000  # of each text, where it has so many


def other_domain(files: tuple[Path, ...]) -> list[str]:
    """The beginnings of texts: of the files, or where none are named of what installed packages say of themselves.

    Raises EngramError where there is no text.
    """
    texts = [text for _, text in texts_of(Corpus(files))] if files else sorted(set(_descriptions()))
    found = list(_beginnings([text for text in texts if text.strip()]))
    if not found:
        raise EngramError("no installed package describes itself", hint="name texts of another domain with --other-domain FILE")
    return found


def _descriptions() -> Iterator[str]:
    """What follows the first empty line of a package's metadata."""
    for package in distributions():
        yield (package.read_text("METADATA") or "").partition("\n\n")[2]


def _beginnings(texts: list[str]) -> Iterable[str]:
    each, left = max(LEAST_CHARACTERS, CHARACTERS // max(1, len(texts))), CHARACTERS
    for text in texts:
        yield text[: min(each, left)]
        left -= min(each, left, len(text))
        if left <= 0:
            return
