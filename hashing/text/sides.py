"""The two sides of a corpus, training and validation: which one a text is on, and how few texts are divided to make two.

A text's side follows from the text alone: a hash gives it a position from 0 to 1, and positions below the share of validation
are validation. So a text falls on the same side whatever its file is called and wherever that lies, a duplicate never leaks
from one side to the other, and what validates at one share validates at every larger one.

With fewer than `ENOUGH_DOCUMENTS` that would leave too much to chance, or nothing at all on one side. Then documents are split
at line ends into pieces, which are hashed in their place.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal

POSITION_BITS = 64
BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
ENOUGH_DOCUMENTS = 256
MIN_PIECE_CHARS, MAX_PIECE_CHARS = 256, 4096

Side = Literal["train", "validation"]


def position(text: str) -> int:
    """Where a text lies, of 2^64 positions: the bits of its hash, the lowest first."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=POSITION_BITS // 8).digest()
    return int.from_bytes(digest.translate(BITS_REVERSED), "big")


@dataclass(frozen=True, slots=True)
class Division:
    """How a corpus falls into sides."""

    validation_below: int  # position
    piece_chars: int = 0  # of a piece of a document, the last of which may have half as many again; 0 leaves documents whole
    moved: int | None = None  # the position that changes sides, where all were on one

    def side(self, text: str) -> Side:
        at = position(text)
        return "validation" if (at < self.validation_below) != (at == self.moved) else "train"

    def pieces(self, text: str) -> Iterator[str]:
        """The text in order, cut after the last line end that fits in a piece, else after the last space, else anywhere."""
        first = 0
        while self.piece_chars and len(text) - first > self.piece_chars * 3 // 2:
            most = first + self.piece_chars
            cut = (text.rfind("\n", first, most) + 1) or (text.rfind(" ", first, most) + 1) or most
            yield text[first:cut]
            first = cut
        yield text[first:]


def divide(texts: Callable[[], Iterator[str]], validation_share: float) -> Division:
    """The division of the texts, which are gone through up to `ENOUGH_DOCUMENTS`, and once more where there are fewer.

    Of fewer, unless all their pieces are alike, some come out on either side: where all fell on one, the rarest are moved.
    """
    count = chars = 0
    below = round(validation_share * 2**POSITION_BITS)
    for text in texts():
        count, chars = count + 1, chars + len(text)
        if count == ENOUGH_DOCUMENTS:
            return Division(below)
    division = Division(below, min(max(chars // ENOUGH_DOCUMENTS, MIN_PIECE_CHARS), MAX_PIECE_CHARS))
    found: Counter[int] = Counter()
    sides = set()
    for piece in (piece for text in texts() for piece in division.pieces(text)):
        found[at := position(piece)] += 1
        sides.add(at < below)
        if len(sides) == 2:
            return division
    rarest = min(found, key=lambda at: (found[at], at))
    return replace(division, moved=rarest if len(found) > 1 else None)
