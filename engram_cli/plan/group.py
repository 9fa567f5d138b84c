"""`engram plan`: what things will cost before they are built; a model or a spec where no other command is named."""

import typer

from engram_cli.default_command import DefaultCommand
from engram_cli.plan.model import plan
from engram_cli.plan.serve import plan_serve


class DefaultModel(DefaultCommand):
    """`engram plan --preset NAME` is `engram plan model --preset NAME`."""

    default = "model"


app = typer.Typer(cls=DefaultModel, help="Say what a model, a spec's tables or serving them will cost.")

app.command("model")(plan)
app.command("serve")(plan_serve)
