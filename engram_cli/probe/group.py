"""`engram probe`: what the memory does for the model."""

import typer

from engram_cli.probe.ablate import ablate
from engram_cli.probe.cka import cka
from engram_cli.probe.gates import gates
from engram_cli.probe.lens import lens
from engram_cli.probe.swap import swap

app = typer.Typer(help="Measure what the memory does for the model.", no_args_is_help=True)


@app.callback()
def probe() -> None:
    """Measure what the memory does for the model."""


app.command("ablate")(ablate)
app.command("lens")(lens)
app.command("cka")(cka)
app.command("gates")(gates)
app.command("swap")(swap)
