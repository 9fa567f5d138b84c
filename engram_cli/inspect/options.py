"""Options that the commands of `engram inspect` share: a run, or a store alone with what names its n-grams."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from runtime.inspect.subject import Subject
    from runtime.run import Run
    from runtime.tokens import Tokens
    from runtime.trained_run import TrainedRun

    Model: TypeAlias = tuple[TrainedRun, Tokens | None]  # and the text it was trained on; None where the run keeps none

StoreOption: TypeAlias = Annotated[
    Path | None, typer.Option("--store", help="A table store to look into instead of a run: no lens and no gate.")
]
TokenizerOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="The tokenizer.json that addresses the store, or a folder holding one, as a run does."),
]
CountsOption: TypeAlias = Annotated[
    Path | None, typer.Option("--counts", help="The file of n-gram counts. Default: ngrams.parquet in the run.")
]
NoLens: TypeAlias = Annotated[bool, typer.Option("--no-lens", help="Ask no model: no lens and no gate, sooner done.")]
Full: TypeAlias = Annotated[bool, typer.Option("--full", help="Look at all rows of large tables, not at a sample.")]


def opened(
    run: Path, store: Path | None, tokenizer: Path | None, counts: Path | None, lens: bool
) -> "tuple[Subject, Model | None]":
    """What the options name, and with `lens` the run's model; a store has none.

    Raises UsageError for a tokenizer without a store: a run has its own.
    """
    from hashing.base.errors import UsageError
    from runtime.inspect.subject import Subject
    from runtime.run import Run

    if store is not None:
        return Subject.of_store(store, tokenizer, counts), None
    if tokenizer is not None:
        raise UsageError("--tokenizer is given without --store", hint="a run has a tokenizer of its own: leave it out")
    source = Run(run)
    with source.reading():
        return Subject.of_run(source, counts), _model(source) if lens else None


def _model(run: "Run") -> "Model":
    from runtime.device import default_device
    from runtime.tokens import Tokens
    from runtime.trained_run import TrainedRun

    folder = run.train_folder / "tokens"
    return TrainedRun.load(run, default_device()), Tokens.open(folder) if folder.exists() else None


def note_missing(subject: "Subject") -> None:
    """Says on stderr what cannot be shown, and what to run for it."""
    from engram_cli.output import note

    for line in subject.notes:
        note(line)
