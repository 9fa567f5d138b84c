"""Options that steer a run's configuration, each described once, and the configuration that they come to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from hashing.vocab import CanonicalVocab
    from runtime.config import RunConfig

PresetName: TypeAlias = Annotated[
    str, typer.Option("--preset", help="What to begin from: nano, tiny, tiny-moe or tiny-streams. Default: tiny.")
]
ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("--config", help="A TOML file that changes the preset, as engram config prints them.")
]
SetOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one of the settings that engram config shows, as model.blocks=4; repeat for more.",
    ),
]
TrainedSpec: TypeAlias = Annotated[
    str, typer.Option("--spec", help="Address by a named spec or a spec's JSON file, rows as wide as memory.head_dim.")
]
NoMemory: TypeAlias = Annotated[bool, typer.Option("--no-memory", help="No memory: no layers and no tables.")]
Steps: TypeAlias = Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps, instead of the preset's.")]
Minutes: TypeAlias = Annotated[float | None, typer.Option("--minutes", help="Minutes of training, instead of steps.")]
UntilLoss: TypeAlias = Annotated[
    float | None, typer.Option("--until-loss", help="Stop once a validation is at or below it, in nats per token.")
]
RowsPlace: TypeAlias = Annotated[
    str,
    typer.Option(
        "--rows",
        metavar="memory|disk",
        help="Where rows are in training: on disk, tables may be larger than memory.",
    ),
]
Seed: TypeAlias = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of weights, rows and order. Default: 0.")]


def chosen_config(
    vocab: "CanonicalVocab",
    *,
    preset: str = "",
    config: Path | None = None,
    sets: Sequence[str] = (),
    spec: str = "",
    no_memory: bool = False,
    steps: int | None = None,
    minutes: float | None = None,
    until_loss: float | None = None,
    seed: int | None = None,
    rows: str = "",
) -> "RunConfig":
    """The configuration over a vocabulary that a training's options come to.

    The config file changes the preset, `sets` change that, and the options with names of their own have the last word. Raises
    UsageError for a setting that there is not, a value that is not the setting's, and for what contradicts one another, and
    EngramError for a file that cannot be read and for tables beyond this machine's memory.
    """
    from engram_cli.options import named_spec_over
    from runtime.device import default_device, fast_precision
    from runtime.train.choice import chosen_settings

    options: dict[str, Any] = {"recipe.steps": steps, "recipe.minutes": minutes, "recipe.until_loss": until_loss}
    options |= {"recipe.seed": seed}
    if rows:
        sets = [*sets, f"recipe.row_place={rows}"]
    settings = chosen_settings(preset=preset, config=config, sets=sets, spec=spec, no_memory=no_memory, options=options)
    outright = named_spec_over(spec, vocab) if spec else None
    chosen = settings.resolve(vocab, fast_precision(default_device()), outright)
    _refuse_too_large(chosen)
    return chosen


def _refuse_too_large(config: "RunConfig") -> None:
    """Raises EngramError for tables that cannot be trained within the memory of this machine."""
    from engram_cli.output import byte_text
    from hashing.base.errors import EngramError
    from runtime.device import default_device, memory_bytes
    from runtime.plan.row_bytes import NUMBER_BYTES, row_state_bytes

    if config.spec is None or config.recipe.row_place == "disk":
        return
    recipe, row_bytes = config.recipe, NUMBER_BYTES * config.head_dim
    row_bytes += row_state_bytes(recipe.row_rule, config.head_dim, recipe.row_momentum)
    needed = config.spec.total_rows * row_bytes
    if needed > (there := memory_bytes(default_device())):
        raise EngramError(
            f"{config.spec.total_rows:,} rows of {config.head_dim} take {byte_text(needed)} in training, of {byte_text(there)}",
            hint="fewer or narrower rows: --set memory.rows_per_head=50000, memory.head_dim or another --spec; or --rows disk",
        )
