"""What `engram stats` counts or follows: the options that name it, and the documents they stand for."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from hashing.spec import HashSpec
    from hashing.text.corpus import Corpus
    from hashing.text.token_stream import Piece, Shard
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run

CorpusArguments: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Text files or folders, or token ids as .npy or Parquet files. "
        "Default: the run's corpus, else the standard library's source."
    ),
]
IdsColumn: TypeAlias = Annotated[
    str, typer.Option(help="Column of token ids; Parquet files and folders then hold ids, not text.")
]
PlotFile: TypeAlias = Annotated[Path | None, typer.Option("--plot", help="Also draw pictures, FILE.png or FILE.svg.")]


@dataclass(frozen=True, slots=True)
class Counting:
    """What to count and how, as the options have it."""

    run: "Run"
    corpus: list[Path]
    ids_column: str
    text_key: str
    text_column: str
    encoding: str
    memory: str = "2GiB"
    shard: str = "1/1"

    def count(self, vocab: "CanonicalVocab", spec: "HashSpec", path: Path, force: bool) -> None:
        from engram_cli.output import note
        from hashing.base.atomic import refuse_overwrite
        from hashing.base.byte_size import parse_bytes
        from hashing.ngrams.counter import count_pieces

        refuse_overwrite(path, force)
        with self.pieces() as pieces:
            totals = count_pieces(pieces, vocab, spec.orders, parse_bytes(self.memory), path)
        note(f"counted {totals.tokens:,} tokens of {totals.documents:,} documents into {path}")

    @contextmanager
    def pieces(self) -> "Iterator[Iterator[Piece]]":
        """The shard's documents, with a progress bar over the bytes read; at the end, what there is to say of reading them."""
        from engram_cli.options import chosen_corpus, note_reading
        from engram_cli.output import progress
        from hashing.text.token_stream import array_files

        shard = self._shard()
        found = {path: array_files(path, self.ids_column) for path in self.corpus}
        arrays = [file for files in found.values() for file in files]
        texts = [path for path, files in found.items() if not files]
        read_text = bool(texts) or not arrays
        source = chosen_corpus(self.run, texts, self.text_key, self.text_column, self.encoding) if read_text else None
        array_bytes = sum(file.stat().st_size for file in arrays if file.exists())
        with progress("bytes") as bar:
            task = bar.add_task("reading", total=array_bytes + (source.file_bytes if source else 0))
            yield self._read(arrays, source, shard, lambda size: bar.advance(task, size))
        if source:
            note_reading(source)

    def _read(
        self, arrays: list[Path], source: "Corpus | None", shard: "Shard", advance: Callable[[int], None]
    ) -> "Iterator[Piece]":
        from hashing.text.token_stream import array_pieces, text_pieces

        for path in arrays:
            for piece in shard.of_pieces(array_pieces(path, self.ids_column)):
                advance(piece.token_ids.nbytes)
                yield piece
        if source:
            tokenizer, end_id = self.run.tokenizer(), self.run.vocab().end_of_text_id
            yield from shard.of_pieces(text_pieces(source, tokenizer, end_id, advance))

    def _shard(self) -> "Shard":
        from hashing.base.errors import UsageError
        from hashing.text.token_stream import Shard

        index, _, of = self.shard.partition("/")
        if not (re.fullmatch("[0-9]{1,9}", index) and re.fullmatch("[0-9]{1,9}", of)):
            raise UsageError(f'"{self.shard}" is not a shard', hint="shards are written like 1/4")
        return Shard(int(index) - 1, int(of))
