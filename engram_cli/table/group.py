"""`engram table`: making, moving and checking tables."""

import typer

from engram_cli.table.convert import convert
from engram_cli.table.create import create
from engram_cli.table.export import export
from engram_cli.table.import_ import import_
from engram_cli.table.info import info
from engram_cli.table.verify import verify

app = typer.Typer(help="Make, import, check, convert and export tables.", no_args_is_help=True)
app.command("create")(create)
app.command("info")(info)
app.command("verify")(verify)
app.command("import")(import_)
app.command("export")(export)
app.command("convert")(convert)
