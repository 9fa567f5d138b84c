"""`engram stats`: n-gram counts, occupancy, collisions and traffic; `report` where no other command is named."""

from difflib import get_close_matches
from pathlib import Path

import typer

from engram_cli.default_command import DefaultCommand
from engram_cli.stats.merge import merge
from engram_cli.stats.report import report
from engram_cli.stats.traffic import traffic
from hashing.base.errors import UsageError


class DefaultReport(DefaultCommand):
    """`engram stats CORPUS` is `engram stats report CORPUS`."""

    default = "report"

    def check_first(self, word: str) -> None:
        """Raises UsageError for a word that is neither a command nor a path that could be meant."""
        meant = get_close_matches(word, self.commands, 1)
        bare = word.isidentifier()  # a path that is missing has its own error, which says more
        if bare and not Path(word).exists():
            question = f"; did you mean {meant[0]}?" if meant else ""
            raise UsageError(f'no command and no file is called "{word}"{question}', hint="engram stats --help")


app = typer.Typer(cls=DefaultReport, help="Count n-grams and say what follows for tables: occupancy, collisions, traffic.")

app.command("report")(report)
app.command("traffic")(traffic)
app.command("merge")(merge)
