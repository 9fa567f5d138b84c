"""The canonical vocabulary: tokens that read alike share an id (tokenizer compression; paper, section 2.2).

For each token id in order, its text is the decode of that single id, and a rule (`hashing/rule.py`) gives the text a key.
Canonical ids are handed out in order of first appearance of a key. An id without a token takes part like any other.

`vocab.parquet` is the format: columns token_id (int32), token, text, canonical_id (int32), key, one row per token id in order;
`engram.rule` and `engram.fingerprint` in the file's metadata, and the ids of the tokens that end a document and pad as
`engram.eos` and `engram.pad`. Files from before those two are read as if the tokens of the usual names had been written.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hashing.base.atomic import atomic_path
from hashing.base.errors import EngramError
from hashing.rule import ENGRAM, Rule
from hashing.text.special_tokens import USUAL, SpecialTokens

SCHEMA = pa.schema(
    [
        ("token_id", pa.int32()),
        ("token", pa.string()),
        ("text", pa.string()),
        ("canonical_id", pa.int32()),
        ("key", pa.string()),
    ]
)
PUT_BACK = "put the file back, or make it again from the same tokenizer with engram build-vocab"


def tokens_by_id(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The tokenizer's own name for each token id, "" for an id without a token. Raises EngramError when there is no token."""
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    tokens = [tokenizer.id_to_token(i) for i in range(size)]
    if None in tokens:  # ids with gaps go beyond the number of tokens
        largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
        tokens = [tokenizer.id_to_token(i) for i in range(largest + 1)]
    if not tokens:
        raise EngramError("the tokenizer has no tokens")
    return tuple(token or "" for token in tokens)


@dataclass(frozen=True, slots=True)
class CanonicalVocab:
    """Token id to canonical id, with the key that each class stands for."""

    tokens: tuple[str, ...]
    texts: tuple[str, ...]
    mapping: NDArray[np.int32]  # (tokens,) canonical id of each token id
    keys: tuple[str, ...]  # one per canonical id
    rule: str = ENGRAM.name
    eos_token_id: int | None = None  # ends a document
    pad_token_id: int | None = None  # stands before a document's first token
    fingerprint: str = field(init=False)  # of the rule, the keys and the mapping: what an address depends on

    def __post_init__(self) -> None:
        if not len(self.tokens) == len(self.texts) == len(self.mapping):
            sizes = f"{len(self.tokens)} tokens, {len(self.texts)} texts and {len(self.mapping)} canonical ids"
            raise EngramError(f"a vocabulary of {sizes}: expected as many of each")
        firsts = np.sort(np.unique(self.mapping, return_index=True)[1])
        if not np.array_equal(self.mapping[firsts], np.arange(len(self.keys))):
            raise EngramError("canonical ids are not in order of first appearance")
        for role, token_id in (("end-of-text", self.eos_token_id), ("pad", self.pad_token_id)):
            if token_id is not None and not 0 <= token_id < len(self.tokens):
                raise EngramError(f"the {role} token is {token_id}, outside the vocabulary of {len(self.tokens)} tokens")
        content = json.dumps([self.rule, self.keys], ensure_ascii=True).encode() + self.mapping.astype("<i4").tobytes()
        object.__setattr__(self, "fingerprint", hashlib.sha256(content).hexdigest()[:16])

    @classmethod
    def from_tokenizer(
        cls, tokenizer: Tokenizer, rule: Rule = ENGRAM, special: SpecialTokens | None = None
    ) -> "CanonicalVocab":
        """With nothing else said, the special tokens are those of the usual names.

        Raises EngramError for a tokenizer without tokens.
        """
        special = special or SpecialTokens.find(tokenizer.token_to_id)
        tokens = tokens_by_id(tokenizer)
        texts = tuple([tokenizer.decode((i,), skip_special_tokens=False) for i in range(len(tokens))])
        keys = map(rule.key, tokens, texts)
        if rule.normalizer is None:
            mapping = np.arange(len(tokens), dtype=np.int32)
            return cls(tokens, texts, mapping, tuple(keys), rule.name, special.eos_id, special.pad_id)
        ids: dict[str, int] = {}
        mapping = np.array([ids.setdefault(key, len(ids)) for key in keys], np.int32)
        return cls(tokens, texts, mapping, tuple(ids), rule.name, special.eos_id, special.pad_id)

    @property
    def size(self) -> int:
        """How many canonical ids there are."""
        return len(self.keys)

    @property
    def end_of_text_id(self) -> int:
        """The id of the token that ends a document. Raises EngramError when there is none."""
        if self.eos_token_id is None:
            raise EngramError(
                f"the vocabulary has no end-of-text token, as {USUAL} would be",
                hint="engram build-vocab --eos TOKEN says which one it is",
            )
        return self.eos_token_id

    @property
    def reduction_percent(self) -> float:
        return 100 * (1 - self.size / len(self.tokens))

    @property
    def mapping_sha256(self) -> str:
        """The SHA-256 of the mapping as little-endian int32, in hexadecimal."""
        return hashlib.sha256(self.mapping.astype("<i4").tobytes()).hexdigest()

    def canonical(self, token_ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """Canonical ids of token ids, any shape; ids below 0 (masked positions) pass through.

        Raises EngramError for an id beyond the vocabulary.
        """
        from hashing.kernel import translate  # here, because numba is half as long to import as a vocabulary is to build

        ids = np.asarray(token_ids, np.int64, order="C")
        canonical = np.empty(ids.shape, np.int64)
        largest = translate(self.mapping, ids.reshape(-1), canonical.reshape(-1))
        if largest >= len(self.mapping):
            raise self._beyond(largest)
        return canonical

    def canonical_of(self, token_id: int) -> int:
        """The canonical id of one token, for the few of a phrase. Raises EngramError for an id beyond the vocabulary."""
        if not 0 <= token_id < len(self.mapping):
            raise self._beyond(token_id)
        return int(self.mapping[token_id])

    def _beyond(self, token_id: int) -> EngramError:
        return EngramError(
            f"token id {token_id} is outside the vocabulary of {len(self.mapping)} tokens",
            hint="the tokenizer and the vocabulary belong together: name those of one run",
        )

    def largest_classes(self, count: int) -> list[tuple[str, int]]:
        """(key, tokens in the class), largest first, ties in order of canonical id."""
        sizes = np.bincount(self.mapping, minlength=self.size)
        order = np.argsort(-sizes, kind="stable")[:count]
        return [(self.keys[i], int(sizes[i])) for i in order]

    def members(self, canonical_id: int) -> list[int]:
        """The token ids of a class, in order."""
        ids: list[int] = np.flatnonzero(self.mapping == canonical_id).tolist()
        return ids

    def save(self, path: Path) -> None:
        keys = [self.keys[i] for i in self.mapping.tolist()]
        columns = [np.arange(len(self.tokens), dtype=np.int32), self.tokens, self.texts, self.mapping, keys]
        table = pa.table([pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)], SCHEMA)
        special = {"engram.eos": self.eos_token_id, "engram.pad": self.pad_token_id}
        metadata = {name: str(token_id) for name, token_id in special.items() if token_id is not None}
        table = table.replace_schema_metadata({"engram.rule": self.rule, "engram.fingerprint": self.fingerprint, **metadata})
        with atomic_path(path) as partial, partial.open("wb") as file:
            pq.write_table(table, file, use_dictionary=False)  # few values occur twice: a dictionary would only cost time

    @classmethod
    def load(cls, path: Path) -> "CanonicalVocab":
        """Raises EngramError when the file is missing, is no vocabulary, or its content is not what its fingerprint says."""
        try:
            with pq.ParquetFile(path) as file:  # read_table would load Arrow's data sets first, which takes longer
                table = file.read()
        except FileNotFoundError as e:
            raise EngramError(f"no such file: {path}", hint="make one with engram build-vocab") from e
        except pa.ArrowInvalid as e:
            raise EngramError(f"{path} cannot be read as Parquet: {str(e).splitlines()[0]}", hint=PUT_BACK) from e
        metadata = table.schema.metadata or {}
        if not {b"engram.rule", b"engram.fingerprint"} <= metadata.keys() or not table.schema.remove_metadata().equals(SCHEMA):
            columns = ", ".join(table.column_names)
            raise EngramError(f"{path} is not a canonical vocabulary; its columns are {columns}", hint=PUT_BACK)
        vocab = cls._from_table(table)
        if vocab.fingerprint != (stored := metadata[b"engram.fingerprint"].decode()):
            raise EngramError(
                f"{path} was altered: its content has fingerprint {vocab.fingerprint}, its metadata has {stored}", hint=PUT_BACK
            )
        return vocab

    @classmethod
    def _from_table(cls, table: pa.Table) -> "CanonicalVocab":
        mapping = table["canonical_id"].to_numpy()
        firsts = np.sort(np.unique(mapping, return_index=True)[1])
        keys = table["key"].to_pylist()
        metadata = table.schema.metadata or {}
        tokens, texts = (tuple(table[name].to_pylist()) for name in ("token", "text"))
        special, rule = _special_tokens(metadata, tokens), metadata[b"engram.rule"].decode()
        return cls(tokens, texts, mapping, tuple(keys[i] for i in firsts.tolist()), rule, special.eos_id, special.pad_id)


def _special_tokens(metadata: dict[bytes, bytes], tokens: tuple[str, ...]) -> SpecialTokens:
    """As the file has them. Raises EngramError when that is no number."""
    if not metadata.keys() & {b"engram.eos", b"engram.pad"}:
        return SpecialTokens.find({token: token_id for token_id, token in enumerate(tokens) if token}.get)
    written = [metadata.get(name) for name in (b"engram.eos", b"engram.pad")]
    if any(digits is not None and not re.fullmatch(b"[0-9]{1,9}", digits) for digits in written):
        raise EngramError(f"the special tokens of the vocabulary are {written}, expected token ids")
    eos, pad = (None if digits is None else int(digits) for digits in written)
    return SpecialTokens(eos, pad)
