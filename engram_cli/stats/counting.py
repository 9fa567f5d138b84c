"""What `engram stats` counts or follows: the options that name it, and the documents they stand for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from hashing.spec import HashSpec
    from hashing.text.token_stream import Piece
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run

CorpusArguments: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(help="Text files or folders, or token ids as .npy or Parquet. Default: the standard library's source."),
]
IdsColumn: TypeAlias = Annotated[str, typer.Option(help="Column of token ids; Parquet files are then ids, not text.")]
PlotFile: TypeAlias = Annotated[Path | None, typer.Option("--plot", help="Also draw pictures, FILE.png or FILE.svg.")]


class Counting:
    """What to count and how, as the options have it."""

    def __init__(
        self, run: "Run", corpus: list[Path], text_key: str, text_column: str, ids_column: str, memory: str, shard: str
    ) -> None:
        self.run, self.corpus, self.ids_column, self.memory, self.shard = run, corpus, ids_column, memory, shard
        self.text_key, self.text_column = text_key, text_column

    def count(self, vocab: "CanonicalVocab", spec: "HashSpec", path: Path, force: bool) -> None:
        from engram_cli.output import note
        from hashing.base.atomic import refuse_overwrite
        from hashing.base.byte_size import parse_bytes
        from hashing.ngrams.counter import count_pieces

        refuse_overwrite(path, force)
        totals = count_pieces(self.pieces(), vocab, spec.orders, parse_bytes(self.memory), path)
        note(f"counted {totals.tokens:,} tokens of {totals.documents:,} documents into {path}")

    def pieces(self) -> "Iterator[Piece]":
        """The shard's documents, with a progress bar over the bytes read."""
        from engram_cli.output import progress
        from hashing.text.corpus import Corpus
        from hashing.text.token_stream import array_pieces, text_pieces

        arrays = [p for p in self.corpus if p.suffix == ".npy" or (self.ids_column and p.suffix == ".parquet")]
        texts = tuple(p for p in self.corpus if p not in arrays)
        source = Corpus(texts, self.text_key, self.text_column)
        files = [*arrays, *([file for file, _ in source.files()] if texts or not arrays else [])]
        with progress("bytes") as bar:
            task = bar.add_task("reading", total=sum(file.stat().st_size for file in files if file.exists()))
            for path in arrays:
                for piece in self._shard().of_pieces(array_pieces(path, self.ids_column)):
                    bar.advance(task, piece.token_ids.nbytes)
                    yield piece
            if texts or not arrays:
                tokenizer = self.run.tokenizer()
                yield from self._shard().of_pieces(text_pieces(source, tokenizer, lambda size: bar.advance(task, size)))

    def _shard(self) -> Any:
        from hashing.base.errors import UsageError
        from hashing.text.token_stream import Shard

        index, _, of = (self.shard or "1/1").partition("/")
        if not (re.fullmatch("[0-9]{1,9}", index) and re.fullmatch("[0-9]{1,9}", of)):
            raise UsageError(f'"{self.shard}" is not a shard', hint="shards are written like 1/4")
        return Shard(int(index) - 1, int(of))
