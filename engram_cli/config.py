"""`engram config`: a configuration as TOML, with a comment for every field."""

from pathlib import Path
from typing import Annotated

import typer

from engram_cli.configuring import ConfigFile, SetOptions
from engram_cli.options import Json


def config(
    preset: Annotated[str, typer.Argument(help="The preset to print: nano or tiny. Default: tiny.")] = "",
    config_file: ConfigFile = None,
    sets: SetOptions = None,
    run: Annotated[Path | None, typer.Option("--run", help="Print what a run was trained with, instead of a preset.")] = None,
    json: Json = False,
) -> None:
    """Print a configuration as TOML, which engram train --config reads; --config and --set change it first.

    Example: engram config

    Example: engram config nano --set model.blocks=4 --set memory.orders=2,3,4

    Example: engram config --run runs/default
    """
    from dataclasses import asdict

    from engram_cli.output import print_json
    from hashing.base.errors import UsageError
    from runtime.run import Run
    from runtime.settings import Settings
    from runtime.settings_file import to_toml
    from runtime.train.choice import changed, chosen_settings, set_change

    if run is None:
        settings = chosen_settings(preset=preset, config=config_file, sets=sets or ())
    elif preset or config_file:
        raise UsageError("--run is given with a preset or a file, expected one to begin from", hint="leave one of them out")
    else:
        trained = Run(run)
        settings = changed(Settings.of(trained.config(), trained.vocab()), [set_change(sets or ())])
    if settings.memory:
        settings.check_layers(settings.memory.layers, "memory.layers")
    if json:
        print_json(asdict(settings))
    else:
        print(to_toml(settings), end="")
