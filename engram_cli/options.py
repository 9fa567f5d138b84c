"""Options that several commands share, each described once."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from runtime.run import DEFAULT_RUN as DEFAULT_RUN  # commands have it from here, beside the option

if TYPE_CHECKING:
    from hashing.spec import HashSpec
    from hashing.text.corpus import Corpus
    from hashing.vocab import CanonicalVocab
    from runtime.placement.placement import PlacementName
    from runtime.run import Run

BUILT_TOKENS = 2048  # of the vocabulary that engram build-vocab trains where no size is given

RunDir: TypeAlias = Annotated[Path, typer.Option("--run", help="The run: the folder that commands pass on.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]
CorpusPaths: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--corpus",
        help="A file or folder of text; repeat for more. Default: the run's own, else the Python standard library's source.",
    ),
]
TextKey: TypeAlias = Annotated[str, typer.Option(help="Key of the text in JSON objects. Default: text.")]
TextColumn: TypeAlias = Annotated[str, typer.Option(help="Column of the text in Parquet files. Default: text.")]
Encoding: TypeAlias = Annotated[
    str,
    typer.Option(help="Encoding of files that are not UTF-8 and have no byte-order mark, as latin-1. Default: pass them over."),
]
ValidationPaths: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--validation", help="A file or folder to validate on, instead of a share of the corpus; repeat for more."),
]
ValidationShare: TypeAlias = Annotated[
    float | None, typer.Option(help="Part of the documents to validate on, as 0.05. Default: 1/32.")
]


def chosen_corpus(
    run: "Run",
    paths: list[Path] | None,
    text_key: str,
    text_column: str,
    encoding: str,
    validation: list[Path] | None = None,
    validation_share: float | None = None,
) -> "Corpus":
    """The corpus as the options have it; without paths it is the one that the run remembers, with what else is given changed.

    Without paths and with nothing remembered it is the standard library's source. Notes on stderr which of the two it is.
    """
    from dataclasses import replace

    from engram_cli.output import note
    from hashing.base.errors import UsageError
    from hashing.text.corpus import Corpus

    if validation and validation_share is not None:
        raise UsageError(
            "--validation and --validation-share are both given", hint="the files named by --validation are that whole side"
        )
    remembered = run.corpus_path.exists() and not paths
    corpus = Corpus.load(run.corpus_path) if remembered else Corpus(tuple(paths or ()))
    if remembered:
        note(f"corpus: {corpus.described}, as {run.corpus_path} remembers")
    elif not paths:
        note(f"corpus: {corpus.described}, as no other is named")
    if validation_share is not None:
        corpus = replace(corpus, validation=(), validation_share=validation_share)
    return replace(
        corpus,
        text_key=text_key or corpus.text_key,
        text_column=text_column or corpus.text_column,
        encoding=encoding or corpus.encoding,
        validation=tuple(validation or corpus.validation),
    )


def note_reading(corpus: "Corpus") -> None:
    """Says what reading the corpus came to, where files were passed over or documents split.

    Of the default corpus nobody wants to hear that the standard library tests other encodings with a few files.
    """
    from engram_cli.output import note

    for line in corpus.reading.notes() if corpus.paths else ():
        note(line)


SpecName: TypeAlias = Annotated[
    str, typer.Option("--spec", help="A named spec, or a spec's JSON file, over the run's vocabulary. Default: the run's own.")
]


def spec_for_run(name: str, run: "Run", vocab: "CanonicalVocab") -> "HashSpec":
    """The spec of that name over the run's vocabulary, or with no name the run's own."""
    if name:
        return named_spec_over(name, vocab)
    own = run.spec()
    run.check_vocab(own, vocab)
    return own


def named_spec_over(name: str, vocab: "CanonicalVocab") -> "HashSpec":
    """The named spec, or that in a JSON file, over a vocabulary.

    Notes on stderr when a published spec over this vocabulary does not give the published model's addresses.
    """
    from engram_cli.output import note
    from hashing.named_specs import NAMED_SPECS, chosen_spec

    spec = chosen_spec(name, vocab)
    published = NAMED_SPECS[name].published_ids if name in NAMED_SPECS else None
    if published not in (None, spec.canonical_size):
        note(
            f"note: {name} was published over {published:,} ids, this vocabulary has {spec.canonical_size:,}: "
            "its rows are not the published model's"
        )
    return spec


def row_bytes_of(spec: str, run: "Run") -> int:
    """How wide a row is: in the run's tables, or as published for a named spec, by default the default one."""
    from hashing.base.errors import UsageError
    from hashing.named_specs import DEFAULT_SPEC, NAMED_SPECS
    from table.encodings.encoding import encoding
    from table.store.store import TableStore

    if not spec and run.tables_path.exists():
        return TableStore.open(run.tables_path).row_bytes
    if spec and spec not in NAMED_SPECS:
        raise UsageError("a spec in JSON does not say how wide a row is", hint="give --row-bytes")
    chosen = NAMED_SPECS[spec or DEFAULT_SPEC]
    return encoding(chosen.encoding).row_bytes(chosen.head_dim)


def checked_text(text: str) -> str:
    """Raises UsageError for bytes on the command line that are no text."""
    from hashing.base.errors import UsageError
    from hashing.text.text_file import SURROGATE

    if SURROGATE.search(text):
        raise UsageError(f"{text!r} is no text in this terminal's encoding", hint="use a UTF-8 locale, as in LC_ALL=C.UTF-8")
    return text


BestCheckpoint: TypeAlias = Annotated[
    bool, typer.Option("--best", help="Use the checkpoint whose validation was best, instead of the newest.")
]


class PlacementChoice(StrEnum):
    device = "device"
    host = "host"
    disk = "disk"


PlacementOption: TypeAlias = Annotated[
    PlacementChoice | None,
    typer.Option("--placement", help="Where the tables live: on the compute device, in host memory, on disk."),
]
Offload: TypeAlias = Annotated[
    bool,
    typer.Option("--offload", help="Move the tables off the compute device: to host memory from a GPU, to disk from a CPU."),
]


ModelFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--model", help="A Hugging Face folder of a model with such a table, in place of a run.")
]
ModelStore: TypeAlias = Annotated[
    Path | None, typer.Option("--store", help="The store that its table was imported into. Default: the folder's own files.")
]
CacheSize: TypeAlias = Annotated[
    str, typer.Option("--cache", help="On disk: how much memory rows may take, as in 512MiB. Default: 256MiB.")
]


def chosen_cache(text: str, placement: "PlacementName") -> int:
    """Bytes. Raises UsageError for what is no size, and for a size where tables are not on disk."""
    from hashing.base.byte_size import parse_bytes
    from hashing.base.errors import UsageError
    from runtime.placement.disk import CACHE_BYTES

    if not text:
        return CACHE_BYTES
    if placement != "disk":
        raise UsageError(f"--cache is for tables on disk, but they are on {placement}", hint="--placement disk puts them there")
    return parse_bytes(text)


def chosen_placement(placement: PlacementChoice | None, offload: bool) -> "PlacementName":
    from hashing.base.errors import UsageError
    from runtime.device import default_device
    from runtime.placement.placement import offloaded

    if placement is not None and offload:
        raise UsageError(
            "--offload and --placement are both given", hint="--placement says exactly what --offload chooses for you"
        )
    if placement is not None:
        return placement.value
    return offloaded(default_device()) if offload else "device"
