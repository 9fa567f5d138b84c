"""What the probes share: the options, and the run and the text that they name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.inspect.probes.bootstrap import Interval
    from runtime.inspect.probes.frequency import Frequency
    from runtime.run import Run
    from runtime.trained_run import TrainedRun
    from runtime.windows import Side, Texts

CorpusFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--corpus", help="A file or folder of text to look at; repeat for more. Default: the run's validation side."),
]
Budget: TypeAlias = Annotated[
    int,
    typer.Option("--tokens", min=1, help="Tokens to look at: a fair sample of windows, or of documents where files are named."),
]
PlotFile: TypeAlias = Annotated[Path | None, typer.Option("--plot", help="Also draw a picture, FILE.png or FILE.svg.")]
TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class Probed:
    """A run and the text that it is probed on."""

    source: "Run"
    trained: "TrainedRun"
    windows: "Side | Texts"

    @classmethod
    def load(cls, run: Path, corpus: list[Path] | None, tokens: int, needs_memory: bool = True) -> "Probed":
        """Raises EngramError for a run without memory, where it is needed."""
        from runtime.device import default_device
        from runtime.inspect.probes.probed_text import probed_text
        from runtime.run import Run
        from runtime.trained_run import TrainedRun

        source = Run(run)
        if needs_memory:
            source.require_memory()
        with source.reading():
            trained = TrainedRun.load(source, default_device())
            return cls(source, trained, probed_text(source, trained, corpus or [], tokens))

    def frequency(self) -> "Frequency | None":
        """How often training had n-grams; None, with a note of what to run, where they were not counted."""
        from engram_cli.output import note
        from runtime.inspect.probes.frequency import Frequency

        found = Frequency.of(self.source, self.trained.vocab)
        if found is None:
            command = self.source.command("stats")
            note(f"note: the run has no ngrams.parquet, so nothing is split by frequency; first run: {command}")
        return found

    @contextmanager
    def progress(self) -> "Iterator[Callable[[int], None]]":
        from engram_cli.output import progress

        with progress("batches") as bar:
            task = bar.add_task("reading", total=self.windows.blocks)
            yield lambda count: bar.advance(task, count)


def check_plot(path: Path | None, force: bool) -> None:
    """Raises UsageError or EngramError for a picture that could not be written, before anything is computed for it."""
    from hashing.base.atomic import refuse_overwrite

    if path is not None:
        from engram_cli.pictures import check_format

        check_format(path)
        refuse_overwrite(path, force)


def of_text(tokens: int, documents: int, corpus: list[Path] | None) -> str:
    where = "" if corpus else ", validation side"
    return f"{tokens:,} token{'s' * (tokens != 1)} of {documents:,} document{'s' * (documents != 1)}{where}"


def interval(bounds: "Interval | None", form: str = "+.4f") -> str:
    """From where to where, each number in the given form."""
    return "–" if bounds is None else f"{bounds[0]:{form}} to {bounds[1]:{form}}"


def phrase_tokens(trained: "TrainedRun", text: str) -> list[int]:
    """The token ids of a phrase. Raises UsageError for one without tokens."""
    from engram_cli.options import checked_text
    from hashing.base.errors import UsageError

    ids: list[int] = trained.tokenizer.encode(checked_text(text), add_special_tokens=False).ids
    if not ids:
        raise UsageError("a phrase is empty; it needs at least one token", hint="name two phrases")
    return ids
