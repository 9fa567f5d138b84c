"""`engram stats`: n-gram counts, occupancy, collisions and traffic; `report` where no other command is named."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from engram_cli.stats.merge import merge
from engram_cli.stats.report import report
from engram_cli.stats.traffic import traffic
from hashing.base.errors import UsageError


class DefaultReport(TyperGroup):
    """`engram stats CORPUS` is `engram stats report CORPUS`."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        """Raises UsageError for a word that is neither a command nor a path that could be meant."""
        first = arguments[0] if arguments else ""
        if not context.resilient_parsing and first not in {*self.commands, *context.help_option_names}:
            self._check_corpus(first)
            arguments = ["report", *arguments]
        return super().parse_args(context, arguments)

    def _check_corpus(self, word: str) -> None:
        meant = get_close_matches(word, self.commands, 1)
        bare = word.isidentifier()  # a path that is missing has its own error, which says more
        if bare and not Path(word).exists():
            question = f"; did you mean {meant[0]}?" if meant else ""
            raise UsageError(f'no command and no file is called "{word}"{question}', hint="engram stats --help")

    def shell_complete(self, context: Any, incomplete: str) -> Any:
        """The commands, and what `report` takes."""
        report = self.commands["report"]
        with report.make_context("report", [], parent=context, resilient_parsing=True) as own:
            return [*super().shell_complete(context, incomplete), *report.shell_complete(own, incomplete)]


app = typer.Typer(cls=DefaultReport, help="Count n-grams and say what follows for tables: occupancy, collisions, traffic.")

app.command("report")(report)
app.command("traffic")(traffic)
app.command("merge")(merge)
