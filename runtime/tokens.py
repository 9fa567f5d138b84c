"""A run's corpus as token ids on disk.

`train/tokens/` holds for each side, `train` and `validation`,

    <side>.bin            little-endian int32 token ids of all documents end to end, an end-of-text token last in each
    <side>.documents.bin  little-endian int64, where each document ends: the position after its end-of-text token

and `tokens.json`, written last: `format` (2), and of each side `counts` (tokens), `documents`, and `text_bytes`, the UTF-8
bytes of the text that the tokens stand for. Format 1, which has no `format`, lacks what is said of documents, and its
validation side is the beginning of the corpus's; such folders are read as they are.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.base.json_object import JsonObject, read_json
from hashing.text.sides import Side
from runtime.run import Run

FORMAT = 2
MAX_BYTES = 1 << 16  # of tokens.json, which holds a few numbers
SIDES: tuple[Side, ...] = get_args(Side)
FILES = tuple(f"{side}{ending}" for side in SIDES for ending in (".bin", ".documents.bin"))


@dataclass(frozen=True, slots=True)
class Tokens:
    """The encoded corpus of a run. Raises EngramError, from `open`, when it is absent or shorter than it says."""

    folder: Path
    counts: dict[Side, int]
    text_bytes: dict[Side, int]  # UTF-8 bytes of the text that the tokens stand for
    documents: dict[Side, int] | None  # how many; None where that was not kept

    @classmethod
    def open(cls, folder: Path) -> "Tokens":
        path = folder / "tokens.json"
        if not path.exists():
            raise EngramError(f"no encoded corpus in {folder}", hint=f"first run: {Run(folder.parent.parent).command('train')}")
        content = read_json(path, MAX_BYTES)
        documents = _counts(content.child("documents")) if _format(content, path) == FORMAT else None
        tokens = cls(folder, _counts(content.child("counts")), _counts(content.child("text_bytes")), documents)
        for side in SIDES:
            _check_size(folder / f"{side}.bin", 4 * tokens.counts[side])
            if documents:
                _check_size(folder / f"{side}.documents.bin", 8 * documents[side])
        return tokens

    def place(self, folder: Path) -> "Tokens":
        """Gives the files second names in a new folder."""
        shutil.copytree(self.folder, folder, copy_function=os.link)
        return Tokens.open(folder)

    def ids(self, side: Side) -> NDArray[np.int32]:
        """The token ids (tokens,) of one side, mapped and not read."""
        return np.memmap(self.folder / f"{side}.bin", "<i4", mode="r")

    def document_ends(self, side: Side) -> NDArray[np.int64] | None:
        """(documents,) The position after each document of a side, ascending and mapped; None where that was not kept.

        Raises EngramError where the last document does not end where the tokens do.
        """
        if self.documents is None:
            return None
        path = self.folder / f"{side}.documents.bin"
        ends: NDArray[np.int64] = np.memmap(path, "<i8", mode="r")
        if (last := int(ends[-1])) != self.counts[side]:
            raise EngramError(f"{path} ends at token {last:,}, expected {self.counts[side]:,}")
        return ends

    def per_byte(self, side: Side) -> float:
        """Tokens per byte of text."""
        return self.counts[side] / self.text_bytes[side]


def _format(content: JsonObject, path: Path) -> int:
    found = content.integer("format") if "format" in content.members else 1
    if found not in (1, FORMAT):
        raise EngramError(f"{path} is of format {found}; this version reads formats 1 and {FORMAT}")
    return found


def _counts(content: JsonObject) -> dict[Side, int]:
    return {side: content.integer(side, least=1) for side in SIDES}


def _check_size(path: Path, expected: int) -> None:
    found = path.stat().st_size if path.is_file() else 0
    if found != expected:
        raise EngramError(f"{path} has {found:,} bytes, expected {expected:,}")
