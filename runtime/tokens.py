"""A run's corpus as token ids on disk.

`train/tokens/` holds `train.bin` and `validation.bin`, little-endian int32 token ids of all documents end to end, and
`tokens.json`, written last, with their lengths and bytes of text.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, get_args

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hashing.base.atomic import atomic_path
from hashing.base.errors import EngramError
from hashing.base.json_object import read_json
from hashing.text.corpus import Corpus, Document
from hashing.text.sides import Side
from hashing.text.tokenizer import encode_documents
from runtime.run import Run

VALIDATION_TOKENS = 1 << 16
MAX_BYTES = 1 << 16  # of tokens.json, which holds four numbers
SIDES: tuple[Side, ...] = get_args(Side)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The encoded corpus of a run. Raises EngramError, from `open`, when it is absent or shorter than it says."""

    folder: Path
    counts: dict[Side, int]
    text_bytes: dict[Side, int]  # UTF-8 bytes of the text that the tokens stand for

    @classmethod
    def open(cls, folder: Path) -> "Tokens":
        path = folder / "tokens.json"
        if not path.exists():
            raise EngramError(f"no encoded corpus in {folder}", hint=f"first run: {Run(folder.parent.parent).command('train')}")
        content = read_json(path, MAX_BYTES)
        counts, text_bytes = content.child("counts"), content.child("text_bytes")
        tokens = cls(
            folder, {side: counts.integer(side, least=1) for side in SIDES}, {side: text_bytes.integer(side) for side in SIDES}
        )
        for side, count in tokens.counts.items():
            if (found := (folder / f"{side}.bin").stat().st_size) != 4 * count:
                raise EngramError(f"{folder / f'{side}.bin'} has {found:,} bytes, expected {4 * count:,}")
        return tokens

    def ids(self, side: Side) -> NDArray[np.int32]:
        """The token ids (tokens,) of one side, mapped and not read."""
        return np.memmap(self.folder / f"{side}.bin", "<i4", mode="r")


def encode_corpus(folder: Path, corpus: Corpus, tokenizer: Tokenizer, end_id: int, advance: Callable[[int], None]) -> Tokens:
    """Encodes a corpus into `folder`, in memory that does not grow with it; `advance` hears of every document.

    Validation keeps its first VALIDATION_TOKENS or so. Raises EngramError when either side comes out empty.
    """
    with atomic_path(folder) as partial:
        partial.mkdir()
        counts: dict[Side, int] = {"train": 0, "validation": 0}
        text_bytes = dict(counts)
        with (partial / "train.bin").open("wb") as train, (partial / "validation.bin").open("wb") as validation:
            files: dict[Side, IO[bytes]] = {"train": train, "validation": validation}
            for document, ids in _encoded(corpus, tokenizer, end_id):
                advance(1)
                side = document.side
                if side == "train" or counts[side] < VALIDATION_TOKENS:
                    files[side].write(np.array(ids, "<i4").tobytes())
                    counts[side] += len(ids)
                    text_bytes[side] += len(document.text.encode("utf-8", "surrogatepass"))
        for side, count in counts.items():
            if count == 0:
                raise EngramError(
                    f"no document of the corpus falls on the {side} side",
                    hint="one document in 32 is kept for validation, by a hash of its text: give more documents",
                )
        (partial / "tokens.json").write_text(json.dumps({"counts": counts, "text_bytes": text_bytes}, sort_keys=True))
    return Tokens.open(folder)


def _encoded(corpus: Corpus, tokenizer: Tokenizer, end_id: int) -> Iterator[tuple[Document, list[int]]]:
    waiting: list[Document] = []

    def texts() -> Iterator[str]:
        for document in corpus.documents():
            waiting.append(document)
            yield document.text

    for ids in encode_documents(tokenizer, end_id, texts()):
        yield waiting.pop(0), ids
