"""`engram stats`: n-gram counts, occupancy, collisions and traffic; `report` where no other command is named."""

from typing import Any

import typer
from typer.core import TyperGroup

from engram_cli.stats.merge import merge
from engram_cli.stats.report import report
from engram_cli.stats.traffic import traffic


class DefaultReport(TyperGroup):
    """`engram stats CORPUS` is `engram stats report CORPUS`."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        if not arguments or (arguments[0] not in self.commands and arguments[0] != "--help"):
            arguments = ["report", *arguments]
        return super().parse_args(context, arguments)


app = typer.Typer(cls=DefaultReport, help="Count n-grams and say what follows for tables: occupancy, collisions, traffic.")

app.command("report")(report)
app.command("traffic")(traffic)
app.command("merge")(merge)
