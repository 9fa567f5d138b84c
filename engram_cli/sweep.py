"""`engram sweep`: many trainings that differ in one thing, with seeds, and what the difference comes to."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.configuring import ConfigFile, PresetName, SetOptions, Steps
from engram_cli.options import Json

if TYPE_CHECKING:
    from runtime.settings import Settings
    from runtime.sweep.sweep import JobName, Sweep

# Of every training, where --set says nothing else: samples are not looked at, and each validation writes a checkpoint.
OWN_SETTINGS = ("recipe.sample_tokens=0", "recipe.evaluations=2")


def sweep(
    name: Annotated[str, typer.Argument(help="What to compare: controls, allocation, rows, placement, ablation or optimiser.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each arm, with seeds from 0.")] = 3,
    steps: Steps = None,
    preset: PresetName = "",
    config: ConfigFile = None,
    sets: SetOptions = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            "--corpus", help="A file or folder of text; repeat for more. Default: the Python standard library's source."
        ),
    ] = None,
    other_domain: Annotated[
        list[Path] | None,
        typer.Option(
            "--other-domain",
            help="Text of another domain; repeat for more. Default: what installed packages say of themselves.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trainings at a time, one thread each. Default: the cores.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where everything is put. Default: sweeps/NAME.")] = None,
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Keep the models and tables of finished trainings.")] = False,
    json: Json = False,
) -> None:
    """Train the arms of a comparison with several seeds, and report losses with their spread, and facts that were kept.

    Text about invented countries is mixed into the corpus. Every model is judged on the corpus's validation side, on text of
    another domain, and on questions about the countries: facts as they were stated, in other words, and such as have the answer
    in a passage before them. Ctrl-C saves; the same command goes on, and with more --seeds adds to what is there.

    Example: engram sweep controls --seeds 5 --steps 1200

    Example: engram sweep rows --preset nano --steps 200 --seeds 2 --corpus notes.txt --out sweeps/mine
    """
    from hashing.base.cores import CORES
    from runtime.sweep.arms import arms_of
    from runtime.sweep.folder import SweepFolder
    from runtime.sweep.sweep import Sweep

    base = _base(preset, config, sets or [], steps)
    planned = Sweep(name, arms_of(name, base), range(seeds), SweepFolder(out or Path("sweeps") / name))
    _prepare(planned, tuple(corpus or ()), tuple(other_domain or ()), keep_runs)
    _run(planned, workers or CORES)
    given: dict[str, Sequence[object]] = {
        "--seeds": [seeds],
        "--steps": [steps] if steps else [],
        "--preset": [preset] if preset else [],
        "--config": [config] if config else [],
        "--set": sets or [],
        "--corpus": corpus or [],
        "--other-domain": other_domain or [],
        "--out": [out] if out else [],
    }
    words = [word for option, values in given.items() for value in values for word in (option, str(value))]
    _conclude(planned, shlex.join(["engram", "sweep", name, *words]), json)


def _base(preset: str, config: Path | None, sets: Sequence[str], steps: int | None) -> "Settings":
    from runtime.train.choice import chosen_settings

    said = {text.partition("=")[0] for text in sets}
    own = [text for text in OWN_SETTINGS if text.partition("=")[0] not in said]
    return chosen_settings(preset=preset, config=config, sets=[*own, *sets], options={"recipe.steps": steps})


def _prepare(planned: "Sweep", corpus: tuple[Path, ...], other_domain: tuple[Path, ...], keep_runs: bool) -> None:
    from engram_cli.options import note_reading
    from engram_cli.output import MIB, note, progress
    from hashing.text.corpus import Corpus

    text = Corpus(corpus)
    note(f"corpus: {text.described}, and planted text")
    with progress("MiB") as bar:
        reading = bar.add_task("gathering and encoding", total=None)
        planned.prepare(
            text, other_domain, keep_runs, lambda done, total: bar.update(reading, completed=done / MIB, total=total / MIB)
        )
    note_reading(text)


def _run(planned: "Sweep", workers: int) -> None:
    """Does what is left to do; on a Ctrl-C says how to go on."""
    from engram_cli.interrupt import CommandInterruptedError, interrupt_asked
    from engram_cli.output import note, progress

    total = len(planned.jobs)
    with interrupt_asked() as stop, progress("trainings") as bar:
        training = bar.add_task("training", total=total, completed=total - len(planned.left))

        def tell(job: "JobName") -> None:
            done = total - len(planned.left)
            bar.update(training, completed=done)
            result = planned.place.result(*job) or {}
            note(f"{job[0]}, seed {job[1]}: {result['nats']:.4f} nats in {result['seconds']:.0f} s ({done} of {total})")

        done = planned.run(workers, lambda: stop() != 0, tell)
    if not done:
        raise CommandInterruptedError("interrupted; every training is saved", hint="the same command goes on from there")


def _conclude(planned: "Sweep", command: str, json: bool) -> None:
    from json import dumps

    from engram_cli.output import note, print_json
    from engram_cli.sweep_plots import plot_sweep
    from hashing.base.atomic import write_text
    from runtime.sweep.report import report

    folder = planned.place.folder
    found = {**report(planned), "command": command, "training_commands": _training_commands(folder)}
    write_text(folder / "report.json", dumps(found, indent=1) + "\n")
    plot_sweep(folder / "report.png", found)
    if json:
        print_json(found)
        return
    _print(found)
    note(f"in {folder}: report.json, report.png, and in arms/ the settings of each")
    note(f"again: {command}")
    note("a training alone:\n  " + "\n  ".join(found["training_commands"]))


def _training_commands(folder: Path) -> list[str]:
    """What a person would type to train one arm with one seed."""
    material = folder / "material"
    text = (
        f"--corpus {shlex.quote(str(material / 'train.jsonl'))} --validation {shlex.quote(str(material / 'validation.jsonl'))}"
    )
    return [
        f"engram build-vocab {shlex.quote(str(material / 'tokenizer.json'))} --run RUN",
        f"engram train --config {shlex.quote(str(folder / 'arms'))}/ARM.toml --seed SEED {text} --run RUN",
    ]


def _print(found: dict[str, Any]) -> None:
    from engram_cli.output import note, print_table

    arms = found["arms"]
    first = arms[0]["name"]
    columns = ["", "seeds", "nats per token", f"more than {first}", "95 % interval", "other domain", "steps", "seconds"]
    rows = [
        [
            arm["name"],
            arm["seeds"],
            _spread(arm["nats"], arm["nats_std"]),
            *_difference(arm["nats_difference"]),
            f"{arm['other_domain_nats']:.4f}",
            arm["steps"],
            f"{arm['seconds']:.0f}",
        ]
        for arm in arms
    ]
    print_table("Validation, ± standard deviation over seeds", columns, rows)
    kinds = ("facts", "paraphrase", "reading")
    answers = [[arm["name"], *(_answered(arm, kind) for kind in kinds)] for arm in arms]
    print_table("Percent of questions right (with the memory suppressed)", ["", *kinds], answers)
    sizes = [[arm["name"], arm["parameters"], arm["table_parameters"], f"{arm['flops_per_token']:,.0f}"] for arm in arms]
    print_table("Sizes", ("", "parameters", "of them in tables", "FLOPs per token"), sizes)
    if slope := found.get("slope"):
        low, high = slope["ci95"]
        print(f"{slope['nats_per_doubling']:+.4f} nats per doubling of the rows, 95 % interval {low:+.4f} to {high:+.4f}")
    note("chance is 5 %; FLOPs are those of matrix products in a forward pass")


def _spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def _difference(found: dict[str, Any] | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    interval = "" if found["ci95"] is None else f"{found['ci95'][0]:+.4f} to {found['ci95'][1]:+.4f}"
    return f"{found['mean']:+.4f}", interval


def _answered(arm: dict[str, Any], kind: str) -> str:
    suppressed = arm[f"{kind}_suppressed_percent"]
    return f"{arm[f'{kind}_percent']:.1f}" + ("" if suppressed is None else f" ({suppressed:.1f})")
