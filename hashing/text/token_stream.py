"""Token ids of a corpus, document by document, from text or from arrays of ids.

A `.npy` file of one dimension is one document and of two dimensions one per row; a Parquet file with a column of integer lists
is one document per row. Arrays are read in pieces and texts are encoded a few at a time, so memory does not grow with them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus, refuse_pipe
from hashing.text.encoding import encode_documents
from hashing.text.tokenizer import load_tokenizer

PIECE_TOKENS = 1 << 18


@dataclass(frozen=True, slots=True)
class Piece:
    token_ids: NDArray[np.integer]
    begins: bool = True  # a document, rather than going on with the one before


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `of`-th document, from number `index` (from 0): what one of several machines counts."""

    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.of:
            raise EngramError(f"shard {self.index + 1}/{self.of} does not exist", hint="shards are 1/n to n/n")

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.of}"

    def of_pieces(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        document = -1
        for piece in pieces:
            document += piece.begins
            if document % self.of == self.index:
                yield piece


@dataclass(frozen=True, slots=True)
class TokenStream:
    """The documents of a corpus, or a shard of them, as token ids: those of files of ids, then those of text.

    It holds no tokens and no open file, so that it can be sent to a process that reads them, here or on another machine.
    """

    text: Corpus | None = None
    tokenizer_path: Path | None = None  # where there is text
    end_id: int = 0  # ends every document of text
    arrays: tuple[Path, ...] = ()  # files of token ids
    ids_column: str = ""  # of the Parquet files among them
    shard: Shard = Shard()

    @property
    def file_bytes(self) -> int:
        """How large its files are, together."""
        array_bytes = sum(file.stat().st_size for file in self.arrays if file.exists())
        return array_bytes + (self.text.file_bytes if self.text else 0)

    def shares(self, of: int) -> list["TokenStream"]:
        """So many streams that have each of its documents once between them."""
        index, step = self.shard.index, self.shard.of
        return [replace(self, shard=Shard(index + step * number, step * of)) for number in range(of)]

    def pieces(self, read: Callable[[int], None] = lambda _: None) -> Iterator[Piece]:
        """The documents in a fixed order; `read` is told of the bytes of all files as they are read, the shard's or not."""
        yield from self.shard.of_pieces(self._array_pieces(read))
        if self.text:
            assert self.tokenizer_path, "text is read with a tokenizer"
            yield from text_pieces(self.text, load_tokenizer(str(self.tokenizer_path)), self.end_id, read, self.shard)

    def _array_pieces(self, read: Callable[[int], None]) -> Iterator[Piece]:
        for path in self.arrays:
            for piece in array_pieces(path, self.ids_column):
                read(piece.token_ids.nbytes)
                yield piece


def text_pieces(
    corpus: Corpus,
    tokenizer: Tokenizer,
    end_id: int,
    read: Callable[[int], None] = lambda _: None,
    shard: Shard = Shard(),
) -> Iterator[Piece]:
    """Every document of the shard, of either side, `end_id` last; `read` is told of the bytes of files as they are read.

    All documents are read, which tells where each begins; only the shard's are encoded, which takes many times as long.
    """

    def texts() -> Iterator[str]:
        told = 0
        for document in corpus.documents():
            read(corpus.reading.read_bytes - told)
            told = corpus.reading.read_bytes
            yield document.text
        read(corpus.reading.read_bytes - told)

    for ids in encode_documents(tokenizer, end_id, islice(texts(), shard.index, None, shard.of)):
        yield Piece(ids)


def array_files(path: Path, column: str) -> list[Path]:
    """The files of token ids that a path stands for: itself, or those in a folder, in sorted order; none for a path of text.

    Parquet files hold ids, and folders are searched, when `column` names the column of ids.
    """
    endings = {".npy", ".parquet"} if column else {".npy"}
    if column and path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in endings and file.is_file())
        if not found:
            raise EngramError(f"{path} holds no token ids: there is no .npy or .parquet file in it")
        return found
    return [path] if path.suffix in endings else []


def array_pieces(path: Path, column: str) -> Iterator[Piece]:
    """Documents of a file of token ids; `column` is the one to read of a Parquet file.

    Raises EngramError when the file is missing, holds something else, or ends early.
    """
    if not path.exists():
        raise EngramError(f"no such file: {path}")
    refuse_pipe(path)
    return _parquet_pieces(path, column) if path.suffix == ".parquet" else _npy_pieces(path)


def _npy_pieces(path: Path) -> Iterator[Piece]:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, kind = read(file)
        except ValueError as e:
            raise EngramError(f"{path} is not a .npy file: {e}") from e
        if fortran and len(shape) == 2:
            raise EngramError(f"{path} is stored column by column, expected row by row", hint="save np.ascontiguousarray of it")
        if kind.kind not in "iu" or len(shape) not in (1, 2):
            raise EngramError(f"{path} holds {kind} of shape {shape}, expected rows of integers in one or two dimensions")
        for _ in range(shape[0] if len(shape) == 2 else 1):
            for first in range(0, shape[-1], PIECE_TOKENS):
                wanted = min(PIECE_TOKENS, shape[-1] - first)
                ids = _native(np.fromfile(file, kind, wanted), path)
                if len(ids) < wanted:
                    raise EngramError(
                        f"{path} ends early: its header says {shape}, but it was cut off or changed while it was read"
                    )
                yield Piece(ids, begins=first == 0)


def _parquet_pieces(path: Path, column: str) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise EngramError(f'{path} has no column "{column}"; it has {", ".join(file.schema_arrow.names)}')
            kind = file.schema_arrow.field(column).type
            if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_integer(kind.value_type):
                raise EngramError(f'{path}: column "{column}" holds {kind}, expected lists of integers')
            for batch in file.iter_batches(batch_size=64, columns=[column]):
                for document in batch.column(0):
                    if document.is_valid and document.values.null_count:
                        raise EngramError(f'{path}: column "{column}" has a document with a null among its token ids')
                    if document.is_valid:
                        yield Piece(_native(document.values.to_numpy(zero_copy_only=False), path))
    except (pa.ArrowInvalid, OSError) as e:
        raise EngramError(f"{path} cannot be read as Parquet: {str(e).splitlines()[0]}") from e


def _native(ids: NDArray[Any], path: Path) -> NDArray[np.integer]:
    """In this machine's byte order. Raises EngramError for numbers that are no token ids, dead positions (below 0) aside."""
    if ids.dtype == np.uint64 and len(ids) and int(ids.max()) >= 2**63:
        raise EngramError(f"{path} holds {int(ids.max())}, which is no token id")
    return ids.astype(ids.dtype.newbyteorder("="), copy=False)
