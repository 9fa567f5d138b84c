"""What the page shows of a `transformers` model: gates, losses and rows.

There is no lens: the library mixes the streams by weights that depend on them before its head reads them, so what a value does
to the logits cannot be read off the weights. Nor is it said who else reads a row, since nothing of its corpus is counted.
"""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from runtime.huggingface import rows_of
from runtime.inspect.library_text import view_library_text
from runtime.inspect.ngram import view_ngram
from runtime.inspect.occurrences import ROW_SAMPLED
from runtime.inspect.page.content import check_tables, text_document, token_count
from runtime.inspect.row import view_rows
from runtime.inspect.subject import Subject


@dataclass(frozen=True, slots=True)
class LibraryContent:
    name: str
    model: Any
    subject: Subject
    turn: Lock  # of the model, which may have others to work for

    @classmethod
    def open(cls, folder: Path, store: Path | None, model: Any, turn: Lock) -> "LibraryContent":
        """`model` is what `huggingface.load` gave for the folder and the store. Raises EngramError as Subject does."""
        tables = {rows.layer: rows.table for rows in rows_of(model)}
        subject = Subject.of_store(store, folder) if store else Subject.of_checkpoint(folder, tables)
        return cls(folder.resolve().name, model, subject, turn)

    def text(self, text: str) -> dict[str, Any]:
        token_count(self.subject, text)
        check_tables(self.subject)
        seen = view_library_text(self.model, self.subject.addressed.tokenizer, text, self.turn)
        return text_document(self.name, text, seen, view_ngram(self.subject, text, every_token=True), self.subject)

    def ngram(self, text: str) -> dict[str, Any]:
        check_tables(self.subject)
        return view_ngram(self.subject, text).to_json()

    def rows(self, rows: list[tuple[int, int]], sampled: int = ROW_SAMPLED) -> dict[str, dict[str, Any]]:  # noqa: ARG002
        check_tables(self.subject)
        return {f"{view.layer}/{view.row}": view.to_json() for view in view_rows(self.subject, rows)}
