"""`engram inspect`: what the memory holds."""

import typer

from engram_cli.inspect.ngram import ngram
from engram_cli.inspect.text import text

app = typer.Typer(help="Show what the memory holds.", no_args_is_help=True)


@app.callback()
def inspect() -> None:
    """Show what the memory holds."""


app.command("ngram")(ngram)
app.command("text")(text)
