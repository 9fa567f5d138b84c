"""`engram train`: a language model, with Engram memory or without, on a corpus."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.configuring import (
    ConfigFile,
    Minutes,
    NoMemory,
    PresetName,
    RowsPlace,
    Seed,
    SetOptions,
    Steps,
    TrainedSpec,
    UntilLoss,
)
from engram_cli.interrupt import interrupt_asked, terminable
from engram_cli.options import (
    DEFAULT_RUN,
    CorpusPaths,
    Encoding,
    Force,
    Json,
    RunDir,
    TextColumn,
    TextKey,
    ValidationPaths,
    ValidationShare,
)
from engram_cli.processes import end_with_parent, in_group, run_processes, silent

if TYPE_CHECKING:
    from hashing.text.corpus import Corpus
    from runtime.config import RunConfig
    from runtime.run import Run
    from runtime.train.peers import Peers
    from runtime.train.trainer import Report, Trainer
    from runtime.validation import Validation

SECONDS_PER_LINE = 10.0


@terminable()
def train(
    corpus: CorpusPaths = None,
    preset: PresetName = "",
    config: ConfigFile = None,
    sets: SetOptions = None,
    spec: TrainedSpec = "",
    no_memory: NoMemory = False,
    steps: Steps = None,
    minutes: Minutes = None,
    until_loss: UntilLoss = None,
    seed: Seed = None,
    rows: RowsPlace = "",
    processes: Annotated[
        int, typer.Option("--processes", help="Processes of this machine that share the batch and the rows.", min=1)
    ] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    text_key: TextKey = "",
    text_column: TextColumn = "",
    encoding: Encoding = "",
    validation: ValidationPaths = None,
    validation_share: ValidationShare = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a language model with Engram memory, or without it. Ctrl-C and SIGTERM save and stop; --resume goes on.

    Example: engram train --minutes 3

    Example: engram train --corpus texts/ --steps 300 --set model.blocks=4 --run runs/mine
    """
    from engram_cli.configuring import chosen_config
    from engram_cli.options import chosen_corpus
    from runtime.run import Run

    if processes > 1 and not in_group():
        raise typer.Exit(run_processes(sys.argv[1:], processes))
    target = Run(run)
    reading = (corpus, text_key, text_column, encoding, validation, validation_share)
    if resume:
        anew = any(
            given not in (None, "", False) for given in (preset, config, sets, spec, no_memory, seed, rows, force, *reading)
        )
        _train(lambda peers: _resumed(target, anew, peers, steps, minutes, until_loss), json)
        return
    named = chosen_config(
        target.vocab(),
        preset=preset,
        config=config,
        sets=sets or (),
        spec=spec,
        no_memory=no_memory,
        steps=steps,
        minutes=minutes,
        until_loss=until_loss,
        seed=seed,
        rows=rows,
    )
    _refuse_second(target, force)
    _train(lambda peers: _started(target, named, chosen_corpus(target, *reading), peers), json)


def _train(begun: Callable[["Peers"], "Trainer"], json: bool) -> None:
    """Trains to the end, or to a Ctrl-C or SIGTERM, and says what came of it; of several processes, the first alone speaks."""
    from runtime.train.peers import Peers, translated

    with translated():
        peers = Peers.join()
        with nullcontext() if peers.is_first else silent():
            trainer = begun(peers)
            _train_and_report(trainer, json)
        peers.leave()


def _train_and_report(trainer: "Trainer", json: bool) -> None:
    from engram_cli.output import note

    with interrupt_asked(signal.SIGTERM) as asked:
        end_with_parent()
        note(_described(trainer))
        _watch(trainer, lambda: asked() > 0)
    if not trainer.is_over:
        note(f"stopped and saved at step {trainer.state.step}, after {trainer.state.elapsed_sec / 60:.1f} minutes of training")
        note(f"hint: {trainer.run.command('train --resume')} goes on from there")
        raise typer.Exit(128 + int(max(trainer.peers.gathered(asked()))))
    _conclude(trainer, json)


def _resumed(
    target: "Run", anew: bool, peers: "Peers", steps: int | None, minutes: float | None, until_loss: float | None
) -> "Trainer":
    from hashing.base.errors import UsageError
    from runtime.train.trainer import Trainer

    if anew:
        raise UsageError(
            "--resume goes on with what was begun; only --steps, --minutes and --until-loss can change, the others are for a "
            "new training",
            hint="leave them out, or leave --resume out",
        )
    if steps is not None and minutes is not None:
        raise UsageError("--steps and --minutes are both given, and a training is as long as one of them", hint="leave one out")
    changes: dict[str, Any] = {}
    if steps is not None or minutes is not None:
        changes |= {"steps": steps, "minutes": minutes}
    if until_loss is not None:
        changes["until_loss"] = until_loss
    return Trainer.resume(target, peers, **changes)


def _refuse_second(target: "Run", force: bool) -> None:
    from hashing.base.errors import EngramError

    if target.config_path.exists() and not force:
        raise EngramError(
            f"the run {target.folder} already has a training",
            hint=f"{target.command('train --resume')} goes on with it, --force starts again, --run names another place",
        )


def _started(target: "Run", config: "RunConfig", corpus: "Corpus", peers: "Peers") -> "Trainer":
    """Sets out, with a bar over the corpus that is encoded: on a terminal, and otherwise a line every few seconds."""
    from engram_cli.interrupt import resumable
    from engram_cli.options import note_reading
    from engram_cli.output import MIB, byte_text, note, progress
    from hashing.base.atomic import partial_path
    from runtime.train.trainer import Trainer

    said = time.monotonic()

    def tell(done_bytes: int, total_bytes: int) -> None:
        nonlocal said
        bar.update(encoding, completed=done_bytes / MIB, total=total_bytes / MIB)
        if bar.disable and time.monotonic() - said > SECONDS_PER_LINE:
            said = time.monotonic()
            note(f"encoding the corpus: {byte_text(done_bytes)} of {byte_text(total_bytes)}")

    with resumable(target.folder / "tokens"), progress("MiB") as bar:
        encoding = bar.add_task("encoding the corpus", total=None)
        try:
            trainer = Trainer.start(target, config, corpus, tell, peers=peers)
        except OSError:
            if (kept := partial_path(target.folder / "tokens")).exists():
                note(f"what was encoded so far is in {kept}: the same command goes on from there")
            raise
    note_reading(corpus)
    return trainer


def _described(trainer: "Trainer") -> str:
    from engram_cli.output import byte_text

    state, recipe, counts = trainer.state, trainer.recipe, trainer.tokens.counts
    parameters = sum(p.numel() for p in state.model.parameters())
    spec = trainer.config.spec
    rows = f"{spec.total_rows:,} rows ({byte_text(4 * spec.total_rows * trainer.config.head_dim)})" if spec else "no memory"
    count = trainer.peers.count
    shared = f", in {count} processes" if count > 1 else ""
    timed = (
        f", minute {state.elapsed_sec / 60:.1f} of {recipe.minutes:g}"
        if recipe.minutes is not None
        else f" of {recipe.steps:,}"
    )
    return (
        f"{counts['train']:,} tokens to train on, {counts['validation']:,} to validate on\n"
        f"{parameters / 1e6:.1f} M parameters and {rows}\n"
        f"step {state.step:,}{timed}, in {trainer.config.precision} on {trainer.device}{shared}"
    )


def _watch(trainer: "Trainer", stop: Callable[[], bool]) -> None:
    """Runs the training: a bar on a terminal, otherwise a line every few seconds and for every validation."""
    from engram_cli.output import note, share_progress

    said = time.monotonic()
    with share_progress() as bar:
        task = bar.add_task("training", total=1.0)
        for report in trainer.steps(stop):
            described = f"step {report.step} · loss {report.loss:.3f} · {report.tokens_per_sec:,.0f} tok/s"
            bar.update(task, completed=report.passed, description=described)
            due = bar.disable and time.monotonic() - said > SECONDS_PER_LINE
            if due or report.validation:
                said = time.monotonic()
                note(_line(report))


def _line(report: "Report") -> str:
    share = f"{100 * min(1.0, report.passed):.0f} %"
    line = f"step {report.step:,} ({share})  loss {report.loss:.4f}  {report.tokens_per_sec:,.0f} tok/s"
    if report.validation is None:
        return line
    line += f"  validation {_nats(report.validation)} nats, {report.validation.bits_per_byte:.4f} bits/byte"
    return line if report.sample is None else f"{line}\n  writes: {report.sample!r}"


def _nats(found: "Validation") -> str:
    """With its standard error, where that is known."""
    error = "" if found.standard_error is None else f" ± {found.standard_error:.4f}"
    return f"{found.nats_per_token:.4f}{error}"


def _conclude(trainer: "Trainer", json: bool) -> None:
    from engram_cli.output import note, print_json, print_table
    from hashing.text.round_trip import loses_characters

    found = trainer.last_validation or trainer.validate()
    measured = {"with the memory" if trainer.config.spec else "without memory": found}
    if trainer.config.spec:
        measured["memory suppressed"] = trainer.validate(memory=False)
    if json:
        print_json(_document(trainer, found, measured.get("memory suppressed")))
        return
    rows = [(name, _nats(v), f"{v.bits_per_byte:.4f}") for name, v in measured.items()]
    title = f"Validation after {trainer.state.step:,} steps, {trainer.state.elapsed_sec / 60:.1f} minutes"
    print_table(title, ("", "nats per token", "bits per byte"), rows)
    documents = "" if found.documents is None else f" of {found.documents:,} document{'s' * (found.documents != 1)}"
    error = "" if found.standard_error is None else ", ± one standard error"
    print(f"on {found.tokens:,} tokens{documents} that were not trained on{error}")
    if loses_characters(trainer.tokenizer):
        note("note: the tokenizer loses characters: bits per byte are too low, as nothing is paid for what is lost")
    if trainer.config.spec:
        print("suppressed is not trained without: engram train --no-memory is the control")
    print(f"the model{' and its tables are' if trainer.config.spec else ' is'} in {trainer.run.folder}")


def _document(trainer: "Trainer", found: "Validation", suppressed: "Validation | None") -> dict[str, Any]:
    return {
        "steps": trainer.state.step,
        "elapsed_sec": trainer.state.elapsed_sec,
        "validation_nats": found.nats_per_token,
        "standard_error_nats": found.standard_error,
        "bits_per_byte": found.bits_per_byte,
        "validation_tokens": found.tokens,
        "validation_documents": found.documents,
        "suppressed_nats": suppressed and suppressed.nats_per_token,
        "suppressed_bits_per_byte": suppressed and suppressed.bits_per_byte,
    }
