"""The canonical vocabulary: tokens that read alike share an id (tokenizer compression; paper, section 2.2).

For each token id in order, its text is the decode of that single id. A text with U+FFFD is a fragment of a character: its key
is the raw vocabulary string. Any other key is the normalised text, or the text itself where normalising leaves nothing.
Canonical ids are handed out in order of first appearance of a key.

`vocab.parquet` is the format: columns token_id (int32), token, text, canonical_id (int32), key, one row per token id in order;
`engram.rule` and `engram.fingerprint` in the file's metadata.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, normalizers

from hashing.atomic import atomic_path
from hashing.errors import EngramError

RULE = "engram"
LONE_SPACE = "\ue000"

SCHEMA = pa.schema(
    [("token_id", pa.int32()), ("token", pa.string()), ("text", pa.string()), ("canonical_id", pa.int32()), ("key", pa.string())]
)


def engram_normalizer() -> normalizers.Sequence:
    """The published normaliser, step by step; the lone space is parked in a private code point while the ends are stripped."""
    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.NFD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[ \t\r\n]+"), " "),
            normalizers.Replace(Regex(r"^ $"), LONE_SPACE),
            normalizers.Strip(),
            normalizers.Replace(LONE_SPACE, " "),
        ]
    )


def canonical_key(token: str, text: str, normalizer: normalizers.Sequence) -> str:
    if "\ufffd" in text:
        return token
    return normalizer.normalize_str(text) or text


@dataclass(frozen=True, slots=True)
class CanonicalVocab:
    """Token id to canonical id, with the key that each class stands for."""

    tokens: tuple[str, ...]
    texts: tuple[str, ...]
    mapping: NDArray[np.int32]  # (tokens,) canonical id of each token id
    keys: tuple[str, ...]  # one per canonical id
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        if not len(self.tokens) == len(self.texts) == len(self.mapping):
            raise EngramError(f"{len(self.tokens)} tokens, {len(self.texts)} texts and {len(self.mapping)} canonical ids do not fit")
        firsts = np.sort(np.unique(self.mapping, return_index=True)[1])
        if not np.array_equal(self.mapping[firsts], np.arange(len(self.keys))):
            raise EngramError("canonical ids are not in order of first appearance")
        content = json.dumps([RULE, self.keys], ensure_ascii=True).encode() + self.mapping.astype("<i4").tobytes()
        object.__setattr__(self, "fingerprint", hashlib.sha256(content).hexdigest()[:16])

    @classmethod
    def from_tokenizer(cls, tokenizer: Tokenizer) -> "CanonicalVocab":
        size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if size == 0:
            raise EngramError("the tokenizer has no tokens")
        tokens = tuple(tokenizer.id_to_token(i) or "" for i in range(size))
        texts = tuple(tokenizer.decode_batch([[i] for i in range(size)], skip_special_tokens=False))
        normalizer = engram_normalizer()
        ids: dict[str, int] = {}
        mapping = [
            ids.setdefault(canonical_key(token, text, normalizer), len(ids)) for token, text in zip(tokens, texts, strict=True)
        ]
        return cls(tokens, texts, np.array(mapping, np.int32), tuple(ids))

    @property
    def size(self) -> int:
        """How many canonical ids there are."""
        return len(self.keys)

    @property
    def reduction_percent(self) -> float:
        return 100 * (1 - self.size / len(self.tokens))

    @property
    def mapping_sha256(self) -> str:
        """Of the mapping as little-endian int32."""
        return hashlib.sha256(self.mapping.astype("<i4").tobytes()).hexdigest()

    def canonical(self, token_ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Canonical ids of token ids, any shape; ids below 0 (masked positions) pass through.

        Raises EngramError for an id beyond the vocabulary.
        """
        ids = np.asarray(token_ids, np.int64)
        if ids.size and int(ids.max()) >= len(self.mapping):
            raise EngramError(f"token id {int(ids.max())} is outside the vocabulary of {len(self.mapping)} tokens")
        return np.where(ids < 0, ids, self.mapping[np.maximum(ids, 0)])

    def largest_classes(self, count: int) -> list[tuple[str, int]]:
        """(key, tokens in the class), largest first, ties in order of canonical id."""
        sizes = np.bincount(self.mapping, minlength=self.size)
        order = np.argsort(-sizes, kind="stable")[:count]
        return [(self.keys[i], int(sizes[i])) for i in order]

    def save(self, path: Path) -> None:
        keys = [self.keys[i] for i in self.mapping]
        columns = [range(len(self.tokens)), self.tokens, self.texts, self.mapping, keys]
        table = pa.table([pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)], SCHEMA)
        table = table.replace_schema_metadata({"engram.rule": RULE, "engram.fingerprint": self.fingerprint})
        with atomic_path(path) as partial, partial.open("wb") as file:
            pq.write_table(table, file)  # type: ignore[no-untyped-call]

    @classmethod
    def load(cls, path: Path) -> "CanonicalVocab":
        """Raises EngramError when the file is missing, is no vocabulary, or its content is not what its fingerprint says."""
        try:
            table = pq.read_table(path)  # type: ignore[no-untyped-call]
        except FileNotFoundError as e:
            raise EngramError(f"no such file: {path}", hint="make one with engram build-vocab") from e
        except pa.ArrowInvalid as e:
            raise EngramError(f"{path} cannot be read as Parquet: {str(e).splitlines()[0]}") from e
        metadata = table.schema.metadata or {}
        if b"engram.fingerprint" not in metadata or not table.schema.remove_metadata().equals(SCHEMA):
            raise EngramError(f"{path} is not a canonical vocabulary; its columns are {', '.join(table.column_names)}")
        vocab = cls._from_table(table)
        if vocab.fingerprint != (stored := metadata[b"engram.fingerprint"].decode()):
            raise EngramError(f"{path} was altered: its content has fingerprint {vocab.fingerprint}, its metadata says {stored}")
        return vocab

    @classmethod
    def _from_table(cls, table: pa.Table) -> "CanonicalVocab":
        mapping = table["canonical_id"].to_numpy()
        firsts = np.sort(np.unique(mapping, return_index=True)[1])
        keys = tuple(table["key"].take(firsts).to_pylist())
        return cls(tuple(table["token"].to_pylist()), tuple(table["text"].to_pylist()), mapping, keys)
