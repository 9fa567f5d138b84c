"""What `engram stats` counts or follows: the options that name it, and the documents they stand for."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from hashing.ngrams.counts import Totals
    from hashing.ngrams.source import Source
    from hashing.spec import HashSpec
    from hashing.text.token_stream import Piece, Shard, TokenStream
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run

CorpusArguments: TypeAlias = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Text files or folders, or token ids as .npy or Parquet files, where ids below 0 are masked positions: they are "
        "not counted, and no n-gram reaches across them. Default: the run's corpus, else the standard library's source."
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
    workers: int = 1

    def count(self, vocab: "CanonicalVocab", spec: "HashSpec", path: Path, force: bool) -> None:
        """Writes the counts to `path`, unless they are there already: those of this very corpus, read in the same way."""
        from engram_cli.interrupt import interrupted, terminable
        from engram_cli.output import note
        from hashing.base.atomic import refuse_overwrite

        stream = self._stream()
        if path.exists() and not force and self._counted(vocab, path, self._source(stream)):
            note(f"the corpus is as it was counted into {path}; --force counts it again")
            return
        refuse_overwrite(path, force)
        try:
            with terminable():
                totals = self._write(stream, vocab, spec, path)
        except KeyboardInterrupt as e:
            raise interrupted(e, hint="the same command counts from the beginning") from e
        note(f"counted {totals.tokens:,} tokens of {totals.documents:,} documents into {path}")

    def _write(self, stream: "TokenStream", vocab: "CanonicalVocab", spec: "HashSpec", path: Path) -> "Totals":
        from hashing.base.byte_size import parse_bytes
        from hashing.ngrams.counter import count_pieces
        from hashing.ngrams.shares import count_in_processes

        memory = parse_bytes(self.memory)
        with _reading(stream) as read:
            if self.workers == 1:
                return count_pieces(stream.pieces(read), vocab, spec.orders, memory, path, self._source(stream))
            source = partial(self._source, stream)
            return count_in_processes(stream, vocab, spec.orders, memory, path, self.workers, source, read)

    def _counted(self, vocab: "CanonicalVocab", path: Path, source: "Source") -> bool:
        """Whether a file has the counts of this source; False where it does not say what it counts.

        Raises EngramError, saying how it differs, for the counts of another source or vocabulary.
        """
        from hashing.base.errors import EngramError
        from hashing.ngrams.counts import NgramCounts

        kept = NgramCounts.open(path)
        kept.check_vocab(vocab.fingerprint)
        if kept.source is not None and (difference := kept.source.difference(source)):
            raise EngramError(
                f"{path} is already there and would be overwritten; it was counted {difference}",
                hint="--force counts again and replaces it, --counts FILE keeps both",
            )
        return kept.source is not None

    def _source(self, stream: "TokenStream") -> "Source":
        from hashing.ngrams.source import Source

        text = stream.text
        options = {"ids_column": self.ids_column, "shard": self.shard}
        if text:
            options |= text.options | {"end_of_text_id": str(stream.end_id)}
        files = [*stream.arrays, *(file for file, _ in (text.files() if text else []))]
        tokenizer = self.run.tokenizer_path.read_bytes() if text else b""
        return Source.of(self.corpus or (text.roots if text else ()), options, files, tokenizer)

    def _stream(self) -> "TokenStream":
        """The files of token ids, and the text, if there is any; with nothing named it is that of the run's corpus."""
        from engram_cli.options import chosen_corpus
        from hashing.text.token_stream import TokenStream, array_files

        found = {path: array_files(path, self.ids_column) for path in self.corpus}
        arrays = tuple(file for files in found.values() for file in files)
        texts = [path for path, files in found.items() if not files]
        if not texts and arrays:
            return TokenStream(arrays=arrays, ids_column=self.ids_column, shard=self._shard())
        self.run.require(self.run.tokenizer_path, "build-vocab")
        text = chosen_corpus(self.run, texts, self.text_key, self.text_column, self.encoding)
        end_id = self.run.vocab().end_of_text_id
        return TokenStream(text, self.run.tokenizer_path, end_id, arrays, self.ids_column, self._shard())

    @contextmanager
    def pieces(self) -> "Iterator[Iterator[Piece]]":
        """The shard's documents, with a progress bar over the bytes read; at the end, what there is to say of reading them."""
        stream = self._stream()
        with _reading(stream) as read:
            yield stream.pieces(read)

    def _shard(self) -> "Shard":
        from hashing.base.errors import UsageError
        from hashing.text.token_stream import Shard

        index, _, of = self.shard.partition("/")
        if not (re.fullmatch("[0-9]{1,9}", index) and re.fullmatch("[0-9]{1,9}", of)):
            raise UsageError(f'"{self.shard}" is not a shard', hint="shards are written like 1/4")
        return Shard(int(index) - 1, int(of))


@contextmanager
def _reading(stream: "TokenStream") -> Iterator[Callable[[int], None]]:
    """A progress bar that the yielded function moves on by bytes read; at the end, what there is to say of reading them."""
    from engram_cli.options import note_reading
    from engram_cli.output import progress

    with progress("bytes") as bar:
        task = bar.add_task("reading", total=stream.file_bytes)
        yield lambda size: bar.advance(task, size)
    if stream.text:
        note_reading(stream.text)
