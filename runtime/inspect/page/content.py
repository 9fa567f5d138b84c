"""What a page shows: documents of a text, a row or a phrase, with all that the views of this room say of them.

They have the keys of `engram inspect text`, `row` and `ngram`; a text's document also has `positions`, each token as the end of
a phrase, so that a page needs nothing else to show what a token reads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Protocol

from hashing.base.errors import UsageError
from runtime.inspect import ngram_model, row_model
from runtime.inspect.ngram import NgramView, view_ngram
from runtime.inspect.occurrences import ROW_SAMPLED
from runtime.inspect.row import view_rows
from runtime.inspect.subject import Subject
from runtime.inspect.text import TextView, view_text
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun
from table.store.store import TableStore

MOST_TOKENS = 512  # of a text on a page, whose every token is looked at
SAMPLED, LEAST_SAMPLED = 24, 3  # occurrences of each n-gram whose gates are read
SAMPLED_TOGETHER = 2048  # of all n-grams of a text: what a person waits for must not grow with the text


class Content(Protocol):
    """Something opened for looking at."""

    @property
    def subject(self) -> Subject:
        """Whose rows are shown."""

    def text(self, text: str) -> dict[str, Any]:
        """Raises UsageError for a text without tokens or with too many."""

    def ngram(self, text: str) -> dict[str, Any]:
        """Raises UsageError for a text without tokens."""

    def rows(self, rows: list[tuple[int, int]], sampled: int = ROW_SAMPLED) -> dict[str, dict[str, Any]]:
        """Rows, given as (layer, row), by "layer/row". Raises UsageError for one that there is not."""


@dataclass(frozen=True, slots=True)
class RunContent:
    """A run. One thread at a time looks, since a model is watched by one caller."""

    name: str
    trained: TrainedRun
    subject: Subject
    tokens: Tokens | None  # None for a run without its training text
    turn: Lock

    @classmethod
    def open(cls, run: Run, trained: TrainedRun) -> "RunContent":
        """The tables are those of the trained model. Raises EngramError, as Subject does, for a run that has none."""
        folder, subject = run.train_folder / "tokens", Subject.of_run(run)
        assert isinstance(subject.store, TableStore), "a run has a store"
        if trained.store is not None and trained.store.step != subject.store.step:  # the best checkpoint is not the newest
            subject = replace(subject, store=trained.store, tables=trained.tables, reads=None)
        tokens = Tokens.open(folder) if folder.exists() else None
        return cls(run.folder.resolve().name, trained, subject, tokens, Lock())

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Raises EngramError, before anything is read, for tables whose files were changed."""
        with self.turn:
            check_tables(self.subject)
            yield

    def text(self, text: str) -> dict[str, Any]:
        found = token_count(self.subject, text)
        with self._looking():
            seen = view_text(self.trained, text)
            phrase = view_ngram(self.subject, text, every_token=True)
            sampled = max(LEAST_SAMPLED, min(SAMPLED, SAMPLED_TOGETHER // (found * len(self.subject.spec.orders))))
            told = ngram_model.with_model(phrase, self.trained, self.tokens, sampled)
        return text_document(self.name, text, seen, told, self.subject)

    def ngram(self, text: str) -> dict[str, Any]:
        with self._looking():
            return ngram_model.with_model(view_ngram(self.subject, text), self.trained, self.tokens).to_json()

    def rows(self, rows: list[tuple[int, int]], sampled: int = ROW_SAMPLED) -> dict[str, dict[str, Any]]:
        with self._looking():
            found = row_model.with_model(view_rows(self.subject, rows), self.trained, self.tokens, sampled)
        return {f"{view.layer}/{view.row}": view.to_json() for view in found}


def token_count(subject: Subject, text: str) -> int:
    """Raises UsageError for more tokens than a page shows."""
    found = len(subject.addressed.tokenizer.encode(text, add_special_tokens=False).ids)
    if found > MOST_TOKENS:
        raise UsageError(f"the text has {found:,} tokens, more than the {MOST_TOKENS} of a page", hint="name a part of it")
    return found


def check_tables(subject: Subject) -> None:
    """Raises EngramError, before anything is read, for tables whose files were changed."""
    for table in subject.tables.values():
        table.files.check_mapped()


def text_document(name: str, text: str, seen: TextView, told: NgramView, subject: Subject) -> dict[str, Any]:
    """Of a text as it was seen, with what each of its tokens reads."""
    positions = [_position(position["layers"]) for position in told.to_json()["positions"]]
    notes = [note.removeprefix("note: ") for note in subject.notes]
    return {"run": name, "text": text, **seen.to_json(), "positions": positions, "notes": notes}


def _position(layers: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """What a token reads, without the histograms of its lenses: a row's own view has one."""
    for layer in layers.values():
        for part in (layer, *layer["orders"].values()):
            part["lens"] = part["lens"] and {name: part["lens"][name] for name in ("up", "down")}
    return {"layers": layers}
