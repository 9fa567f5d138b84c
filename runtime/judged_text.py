"""JudgedText: a text of the user's own as token ids, from the command line, a file, a folder or standard input."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from tokenizers import Tokenizer

from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus
from hashing.text.reading import Remark
from hashing.text.round_trip import loses_characters


@dataclass(frozen=True, slots=True)
class JudgedText:
    name: str
    token_ids: Sequence[int]
    text_bytes: int
    is_whole: bool  # whether the tokens stand for all of the text; a tokenizer may lose case, white space or characters

    @classmethod
    def encode(cls, name: str, text: str, tokenizer: Tokenizer) -> "JudgedText":
        """Raises EngramError for a text that gives no tokens."""
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            raise EngramError(f"{name} gives no tokens: it is empty", hint="name a text, or a file with text in it")
        return cls(name, ids, len(text.encode()), not loses_characters(tokenizer, [text]))


def texts_of(corpus: Corpus) -> Iterator[tuple[str, str]]:
    """The name and the text of each document of a corpus, which in `reading` leaves what there is to say of it.

    A corpus cuts long texts into parts, which are put together again here. Raises EngramError as Corpus does.
    """
    for name, parts in groupby(corpus.documents(), lambda document: re.sub(r"(#\d+)+$", "", document.name)):
        yield name, "".join(part.text for part in parts)
    corpus.reading.tallies.pop(Remark.SPLIT, None)
