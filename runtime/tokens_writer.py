"""Writing a corpus as token ids, from where an interrupted writer stopped.

`RUN/tokens.partial/` has the files of `train/tokens/` as far as they are written, and `written.json`, which is replaced every
`COMMIT_TOKENS` tokens: the figures of `tokens.json` up to there, and `stamp`, which stands for what is encoded and how. Who
finds his own stamp there cuts the files to those figures and goes on with the next document; with another he starts anew. The
documents before that one are read again, which takes a small part of the time that encoding them takes.

What is complete gets second names in the run that is made of it, and stays until that run is in its place.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer

from hashing.base.atomic import lock_partial, partial_path, remove, write_text
from hashing.base.errors import EngramError
from hashing.base.json_object import JsonObject, read_json
from hashing.ngrams.source import Source
from hashing.text.corpus import Corpus, Document
from hashing.text.encoding import Ids, encode_documents
from hashing.text.sides import Side
from runtime.tokens import FILES, FORMAT, MAX_BYTES, SIDES, Tokens

COMMIT_TOKENS = 1 << 22  # the most that a kill costs, and the least that is worth keeping after an error
TOLD_BYTES = 1 << 18  # between two words of progress
WRITTEN = "written.json"
OWN = {*FILES, WRITTEN, f"{WRITTEN}.partial"}

Progress = Callable[[int, int], None]  # hears of the bytes of the corpus's files that are read, and of how many they have


def quiet(_done_bytes: int, _total_bytes: int) -> None:
    """No progress to show."""


def _zeros() -> dict[Side, int]:
    return dict.fromkeys(SIDES, 0)


@dataclass(frozen=True, slots=True)
class Figures:
    """How much the files hold, side by side."""

    counts: dict[Side, int] = field(default_factory=_zeros)  # tokens
    documents: dict[Side, int] = field(default_factory=_zeros)
    text_bytes: dict[Side, int] = field(default_factory=_zeros)

    @classmethod
    def from_json(cls, content: JsonObject) -> "Figures":
        names = ("counts", "documents", "text_bytes")
        return cls(*({side: content.child(name).integer(side, least=0) for side in SIDES} for name in names))

    @property
    def tokens(self) -> int:
        return sum(self.counts.values())

    def add(self, document: Document, tokens: int) -> None:
        self.counts[document.side] += tokens
        self.documents[document.side] += 1
        self.text_bytes[document.side] += len(document.text.encode("utf-8", "surrogatepass"))

    def file_bytes(self) -> dict[str, int]:
        """How large each of the files is."""
        ids = {f"{side}.bin": 4 * self.counts[side] for side in SIDES}
        return ids | {f"{side}.documents.bin": 8 * self.documents[side] for side in SIDES}


class TokensWriter:
    """The token files of a corpus, being written by one process at a time.

    As a context manager it removes them in the end, unless it is left by an error and they are worth going on from. Entering
    raises EngramError when another process writes them.
    """

    def __init__(self, path: Path, stamp: str) -> None:
        """The files are prepared under the partial name of `path`."""
        self._path, self._folder, self._stamp = path, partial_path(path), stamp

    def __enter__(self) -> "TokensWriter":
        with ExitStack() as unless_entered:
            lock = lock_partial(self._path, OWN)
            unless_entered.callback(os.close, lock)
            self.figures = self._found() or self._begun()
            self._committed, self._uncommitted = self.figures.tokens, 0
            self._files = {name: unless_entered.enter_context((self._folder / name).open("ab")) for name in FILES}
            for name, size in self.figures.file_bytes().items():
                self._files[name].truncate(size)
            self._opened = unless_entered.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._opened:
            if kind is None or self._committed < COMMIT_TOKENS:
                remove(self._folder)

    def _found(self) -> Figures | None:
        """What an earlier writer of the same stamp has committed, unless its files are shorter than it says."""
        path = self._folder / WRITTEN
        if not path.is_file() or (content := read_json(path, MAX_BYTES)).text("stamp") != self._stamp:
            return None
        figures = Figures.from_json(content)
        files = {name: self._folder / name for name in FILES}
        whole = all(files[name].is_file() and files[name].stat().st_size >= size for name, size in figures.file_bytes().items())
        return figures if whole else None

    def _begun(self) -> Figures:
        remove(self._folder / WRITTEN)  # first, so that what is half removed is not gone on from
        for left in self._folder.iterdir():
            remove(left)
        return Figures()

    def add(self, document: Document, ids: Ids) -> None:
        """Writes the document that follows those that `figures` tells of."""
        self.figures.add(document, len(ids))
        self._files[f"{document.side}.bin"].write(ids.astype("<i4", copy=False).tobytes())
        self._files[f"{document.side}.documents.bin"].write(self.figures.counts[document.side].to_bytes(8, "little"))
        self._uncommitted += len(ids)
        if self._uncommitted >= COMMIT_TOKENS:
            self.commit()

    def commit(self) -> None:
        """From here on a later writer can go on, whatever happens to this one or to the machine."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        write_text(self._folder / WRITTEN, json.dumps({"stamp": self._stamp, **asdict(self.figures)}, sort_keys=True))
        self._committed, self._uncommitted = self._committed + self._uncommitted, 0

    def place(self, folder: Path) -> Tokens:
        """Gives the files second names in a new folder, and says there what they hold.

        Raises EngramError when either side is empty.
        """
        for side, count in self.figures.counts.items():
            if count < 2:
                raise EngramError(
                    f"no document of the corpus falls on the {side} side",
                    hint="give more text, or say what to validate on with --validation FILE or --validation-share",
                )
        self.commit()
        folder.mkdir(parents=True)
        for name in FILES:
            os.link(self._folder / name, folder / name)
        (folder / "tokens.json").write_text(json.dumps({"format": FORMAT, **asdict(self.figures)}, sort_keys=True))
        return Tokens.open(folder)


@contextmanager
def encoded_corpus(
    path: Path, corpus: Corpus, tokenizer: Tokenizer, end_id: int, progress: Progress = quiet
) -> Iterator[TokensWriter]:
    """Encodes a corpus beside `path`, in memory that does not grow with it; within the block it is complete.

    Raises EngramError as reading the corpus does, and when another process encodes there.
    """
    source = _source(corpus, tokenizer, end_id)
    stamp = hashlib.sha256(source.to_json().encode("utf-8", "surrogatepass")).hexdigest()
    with TokensWriter(path, stamp) as writer:
        done = sum(writer.figures.documents.values())
        taken: deque[Document] = deque()
        for ids in encode_documents(
            tokenizer, end_id, _texts(corpus, done, taken, lambda read: progress(read, source.size_bytes))
        ):
            writer.add(taken.popleft(), ids)
        progress(source.size_bytes, source.size_bytes)
        yield writer


def _source(corpus: Corpus, tokenizer: Tokenizer, end_id: int) -> Source:
    """All that decides what the files come to hold."""
    options = corpus.options | {"end_of_text_id": str(end_id), "tokenizers": tokenizers.__version__, "format": str(FORMAT)}
    files = [file for file, _ in corpus.files()]
    return Source.of(corpus.roots, options, files, tokenizer.to_str().encode())


def _texts(corpus: Corpus, first: int, taken: deque[Document], read: Callable[[int], None]) -> Iterator[str]:
    """The texts from the document of number `first` on, each document of which is put into `taken`."""
    told = 0
    for number, document in enumerate(corpus.documents()):
        if corpus.reading.read_bytes - told >= TOLD_BYTES:
            read(told := corpus.reading.read_bytes)
        if number >= first:
            taken.append(document)
            yield document.text
