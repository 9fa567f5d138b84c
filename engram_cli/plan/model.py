"""`engram plan`: what a configuration will cost, before anything is built."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.configuring import SetOptions
from engram_cli.options import BUILT_TOKENS, Json

if TYPE_CHECKING:
    from runtime.plan.shape import ModelShape

DEFAULT_SPEC = "deepseek-v4.1"


def plan(
    preset: Annotated[str, typer.Option(help="A model: one to train (nano, tiny), or a published one (engram-27b, …).")] = "",
    run: Annotated[Path | None, typer.Option("--run", help="The model of a run, as it was trained.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file that engram train --config takes.")] = None,
    sets: SetOptions = None,
    spec: Annotated[
        str, typer.Option(help="Tables alone: a named spec, or the path of one in JSON. Without any model: deepseek-v4.1.")
    ] = "",
    head_dim: Annotated[int, typer.Option(min=0, max=1 << 16, help="Numbers of a row. Default: the named spec's.")] = 0,
    encoding: Annotated[str, typer.Option(help="How rows are stored. Default: as the spec is published.")] = "",
    vocab_size: Annotated[
        int | None, typer.Option(min=1, max=1 << 24, help="Tokens of a vocabulary that there is not yet. Default: 2048.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, max=1 << 30, help="Positions that a token attends to. Default: those of training.")
    ] = None,
    tokens_per_sec: Annotated[float, typer.Option(min=0, max=1e15, help="Tokens read per second, for the bandwidth.")] = 1000,
    json: Json = False,
) -> None:
    """Show parameters, FLOPs, bytes and bandwidth of a model, or of a spec's tables.

    Example: engram plan --preset engram-27b

    Example: engram plan --set model.experts=16 --set memory.rows_per_head=1000000

    Example: engram plan --spec deepseek-v4.1 --encoding int4 --tokens-per-sec 9000 --json
    """
    from engram_cli.plan.table_plan import plan_tables

    if run is None and not (preset or config or sets):
        _refuse(
            "no model is named", {"--vocab-size": vocab_size, "--context": context}, "name one: --preset, --run or --config"
        )
        plan_tables(spec or DEFAULT_SPEC, head_dim, encoding, tokens_per_sec, json)
        return
    _refuse("a model is named too", {"--spec": spec, "--head-dim": head_dim or None})
    _plan_model(_shape(preset, run, config, sets or (), vocab_size), tokens_per_sec, encoding, context, json)


def _plan_model(shape: "ModelShape", tokens_per_sec: float, encoding: str, context: int | None, json: bool) -> None:
    from engram_cli.output import print_json
    from engram_cli.plan.model_plan import print_plan
    from runtime.plan.model_plan import ModelPlan

    planned = ModelPlan.of(shape, tokens_per_sec, encoding, context)
    if json:
        print_json(planned.to_json())
    else:
        print_plan(planned)


def _shape(preset: str, run: Path | None, config: Path | None, sets: Sequence[str], vocab_size: int | None) -> "ModelShape":
    """Of what is named. Raises UsageError for a preset that there is not, and for what does not go together."""
    from runtime.plan.configured import shape_of_config, shape_of_settings
    from runtime.plan.published import PUBLISHED
    from runtime.run import Run
    from runtime.train.choice import chosen_settings
    from runtime.train.presets import DEFAULT_PRESET, PRESETS, check_name

    changes = {"--config": config, "--set": sets, "--vocab-size": vocab_size}
    if run is not None:
        _refuse(f"--run {run} names a model as it was trained", {"--preset": preset, **changes})
        return shape_of_config(Run(run).config(), str(run))
    if preset in PUBLISHED:
        _refuse(f"--preset {preset} names a model as it is published", changes)
        return PUBLISHED[preset].shape(preset)
    if preset:
        check_name(preset, "preset", [*PRESETS, *PUBLISHED])
    settings = chosen_settings(preset=preset, config=config, sets=sets)
    name = " ".join([str(config or preset or DEFAULT_PRESET), *sets])
    return shape_of_settings(settings, BUILT_TOKENS if vocab_size is None else vocab_size, name)


def _refuse(reason: str, given: Mapping[str, object], hint: str = "leave one of the two out") -> None:
    """Raises UsageError for the first option that is given although there is a reason against it."""
    from hashing.base.errors import UsageError

    if option := next((name for name, value in given.items() if value not in (None, "", ())), ""):
        raise UsageError(f"{option} is given, but {reason}", hint)
