"""`engram train`: a language model with Engram memory, on a corpus."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import DEFAULT_RUN, CorpusPaths, Force, Json, RunDir, TextColumn, TextKey

if TYPE_CHECKING:
    from hashing.text.corpus import Corpus
    from runtime.run import Run
    from runtime.train.trainer import Report, Trainer
    from runtime.validation import Validation

SECONDS_PER_LINE = 10.0


def train(
    corpus: CorpusPaths = None,
    preset: Annotated[str, typer.Option(help="What to train: nano or tiny. Default: tiny.")] = "",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps, instead of the preset's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights, rows and order. Default: 0.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    text_key: TextKey = "text",
    text_column: TextColumn = "text",
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a language model with Engram memory. Ctrl-C saves and stops; --resume goes on.

    Example: engram train

    Example: engram train --corpus texts/ --steps 300 --run runs/mine
    """
    from engram_cli.interrupt import interrupt_asked
    from engram_cli.output import note
    from hashing.base.errors import UsageError
    from hashing.text.corpus import Corpus
    from runtime.run import Run
    from runtime.train.trainer import Trainer

    if resume:
        if corpus or preset or steps is not None or seed is not None or force:
            raise UsageError(
                "--resume goes on with what was begun; --corpus, --preset, --steps, --seed and --force are for a new training",
                hint="leave them out, or leave --resume out",
            )
        trainer = Trainer.resume(Run(run))
    else:
        source = Corpus(tuple(corpus or ()), text_key, text_column)
        trainer = _start(Run(run), source, force, preset or "tiny", steps, seed)
    note(_described(trainer))
    with interrupt_asked() as stop:
        _watch(trainer, stop)
    if trainer.state.step < trainer.recipe.steps:
        note(f"stopped and saved at step {trainer.state.step} of {trainer.recipe.steps}")
        note(f"hint: {Run(run).command('train --resume')} goes on from there")
        raise typer.Exit(130)
    _conclude(trainer.state.step, trainer.validate(), trainer.validate(memory=False), run, json)


def _start(target: "Run", corpus: "Corpus", force: bool, name: str, steps: int | None, seed: int | None) -> "Trainer":
    from engram_cli.output import progress
    from hashing.base.errors import EngramError
    from runtime.device import default_device, fast_precision
    from runtime.train.presets import preset
    from runtime.train.trainer import Trainer

    config = preset(name, target.vocab(), fast_precision(default_device()), steps, seed)
    if target.config_path.exists() and not force:
        hint = f"{target.command('train --resume')} goes on with it, --force starts again, --run names another place"
        raise EngramError(f"the run {target.folder} already has a training", hint)
    with progress("documents") as bar:
        reading = bar.add_task("encoding the corpus", total=None)
        return Trainer.start(target, config, corpus, lambda count: bar.advance(reading, count))


def _described(trainer: "Trainer") -> str:
    from engram_cli.output import byte_text

    parameters = sum(p.numel() for p in trainer.state.model.parameters())
    rows = sum(len(table.weight) for table in trainer.state.tables.values())
    in_tables = sum(table.weight.nbytes for table in trainer.state.tables.values())
    counts = trainer.tokens.counts
    return (
        f"{counts['train']:,} tokens to train on, {counts['validation']:,} to validate on\n"
        f"{parameters / 1e6:.1f} M parameters and {rows:,} rows ({byte_text(in_tables)})\n"
        f"step {trainer.state.step} of {trainer.recipe.steps}, in {trainer.config.precision} on {trainer.device}"
    )


def _watch(trainer: "Trainer", stop: Callable[[], bool]) -> None:
    """Runs the training: a bar on a terminal, otherwise a line every few seconds and for every validation."""
    from engram_cli.output import note, progress

    said = time.monotonic()
    with progress("steps") as bar:
        steps = bar.add_task("training", total=trainer.recipe.steps, completed=trainer.state.step)
        for report in trainer.steps(stop):
            described = f"loss {report.loss:.3f} · {report.tokens_per_sec:,.0f} tok/s"
            bar.update(steps, completed=report.step, description=described)
            due = bar.disable and time.monotonic() - said > SECONDS_PER_LINE
            if due or report.validation:
                said = time.monotonic()
                note(_line(report, trainer.recipe.steps))


def _line(report: "Report", steps: int) -> str:
    line = f"step {report.step}/{steps}  loss {report.loss:.4f}  {report.tokens_per_sec:,.0f} tok/s"
    if report.validation is None:
        return line
    return f"{line}  validation {report.validation.nats_per_token:.4f} nats, {report.validation.bits_per_byte:.4f} bits/byte"


def _conclude(steps: int, memory: "Validation", suppressed: "Validation", run: Path, json: bool) -> None:
    from engram_cli.output import print_json, print_table

    if json:
        print_json(
            {
                "steps": steps,
                "validation_nats": memory.nats_per_token,
                "bits_per_byte": memory.bits_per_byte,
                "suppressed_nats": suppressed.nats_per_token,
                "suppressed_bits_per_byte": suppressed.bits_per_byte,
            }
        )
        return
    named = (("with the memory", memory), ("memory suppressed", suppressed))
    rows = [(name, f"{v.nats_per_token:.4f}", f"{v.bits_per_byte:.4f}") for name, v in named]
    print_table(f"Validation after {steps:,} steps", ("", "nats per token", "bits per byte"), rows)
    print(f"the model and its tables are in {run}")
