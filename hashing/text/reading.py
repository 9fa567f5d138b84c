"""What reading a corpus came to: the files it passed over and why, and what it did to documents on the way.

A corpus fills its own Reading in each pass over it; `notes` says it in sentences for the person who brought the files.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hashing.base.errors import EngramError

EXAMPLES = 2  # of each kind, by name


class Remark(Enum):
    """What is worth saying of a file or a document, as a sentence over `{files}` or `{documents}`, and `{examples}` of them."""

    NOT_TEXT = "passed over {files}, no text: {examples}"
    NOT_UTF8 = "passed over {files}, not UTF-8 (--encoding says what such files are in): {examples}"
    HTML = "passed over {files}, HTML (named outright it is read, markup and all): {examples}"
    NO_TEXTS = "passed over {files}, no texts where they are looked for (--text-key, --text-column): {examples}"
    NOT_JSON = "passed over {files}, not to be read as JSON: {examples}"
    DAMAGED = "passed over {files}, damaged: {examples}"
    HIDDEN = "passed over {files}, hidden or of installed packages: {examples}"
    BROKEN_OFF = "read {files} only up to the first fault: {examples}"
    DECODED = "read {files} in other encodings than UTF-8: {examples}"
    MARKUP = "read {files} of HTML as text, markup and all: {examples}"
    SPLIT = "split {documents} at line ends into {pieces:,} pieces, so that both sides get some"
    DUPLICATE = "left {documents} out of training, whose text the validation files hold too: {examples}"


class NoTextsError(EngramError):
    """A file holds no texts that can be read: passed over in a folder, refused when it is named outright."""

    def __init__(self, remark: Remark, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.remark = remark

    def __reduce__(self) -> tuple[Any, ...]:  # as it was made, where it is sent from one process to another
        return type(self), (self.remark, str(self), self.hint)


@dataclass(slots=True)
class Tally:
    """How many, and the first few by name."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = self.count - len(self.examples)
        return " · ".join([*self.examples, *([f"and {more:,} more"] if more else [])])


@dataclass(slots=True)
class Reading:
    """The remarks of one pass over a corpus, how far it is, and how many pieces documents were split into."""

    tallies: dict[Remark, Tally] = field(default_factory=dict)
    pieces: int = 0
    finished_bytes: int = 0  # of the files that are read or passed over
    begun_bytes: int = 0  # read of the file after them

    def begin(self) -> None:
        """Forgets the pass before."""
        self.tallies.clear()
        self.pieces = self.finished_bytes = self.begun_bytes = 0

    def take(self, other: "Reading") -> None:
        """Says what another pass, in another process, came to."""
        self.tallies = other.tallies
        self.pieces, self.finished_bytes, self.begun_bytes = other.pieces, other.finished_bytes, other.begun_bytes

    @property
    def read_bytes(self) -> int:
        """How far the pass is: at its end, as many as the corpus's files have together."""
        return self.finished_bytes + self.begun_bytes

    def at(self, position: int) -> None:
        """Has read as many bytes of the file that it is in."""
        self.begun_bytes = position

    def finish(self, file_bytes: int) -> None:
        """Is done with a file of that size."""
        self.finished_bytes += file_bytes
        self.begun_bytes = 0

    def add(self, remark: Remark, example: str) -> None:
        tally = self.tallies.setdefault(remark, Tally())
        tally.count += 1
        if len(tally.examples) < EXAMPLES:
            tally.examples.append(example)

    def count(self, remark: Remark) -> int:
        return self.tallies[remark].count if remark in self.tallies else 0

    def notes(self) -> list[str]:
        """A sentence for each kind of remark there was, in the order of Remark; none for a folder of plain UTF-8 texts."""
        return [
            remark.value.format(
                files=_number(tally.count, "file"),
                documents=_number(tally.count, "document"),
                examples=tally,
                pieces=self.pieces,
            )
            for remark in Remark
            if (tally := self.tallies.get(remark))
        ]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
