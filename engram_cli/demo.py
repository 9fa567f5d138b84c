"""`engram demo`: the whole loop on this machine, each step by the command that a person would type.

`demo.json` in the run says that the demo made it, and keeps what each finished training said, so that an interrupted demo goes
on where it was. A demo that replaces another is made in a folder of its own first, and takes its place when it is complete.
"""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import typer

PROMPT = "def __init__(self"
PHRASE = "is not None"
PAGE, PAGE_TEXT = "page.html", "if value is not None:\n    return self.name"
SAMPLE_TOKENS = 128
MINUTES = 2.2  # of the two trainings, which run at the same time
CONTROL = "control"  # the run within the run that is trained without memory


def demo(
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of each training, instead of minutes.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help=f"Minutes of the two trainings, with the memory and without, at the same time. Default: {MINUTES}."),
    ] = None,
    run: Annotated[Path, typer.Option("--run", help="Where everything is put.")] = Path("runs/demo"),
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier demo instead of going on with it.")] = False,
) -> None:
    """Build a vocabulary, train with memory and without, generate, serve and look inside, then sum up.

    Example: engram demo

    Example: engram demo --steps 50 --run runs/quick
    """
    length = _length(steps, minutes)
    with _interruptible(), ExitStack() as place:
        show = Demo.begin(place, run, length, force)
        show.train()
        generated, answered = show.use()
        view = show.look_inside()
    _summarise(run, show, generated, answered, view)


def _length(steps: int | None, minutes: float | None) -> dict[str, Any]:
    """Of each training. Raises UsageError, before anything is built, for what no training can be."""
    from hashing.base.errors import UsageError

    if steps is not None and minutes is not None:
        raise UsageError("--steps and --minutes are both given, and a training is as long as one of them", hint="leave one out")
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"--minutes is {minutes:g}, expected above 0", hint=f"as in --minutes {MINUTES}")
    return {"minutes": minutes or MINUTES} if steps is None else {"steps": steps}


@contextmanager
def _interruptible() -> Iterator[None]:
    """Within the block Ctrl-C says that the demo can be gone on with."""
    try:
        yield
    except KeyboardInterrupt as e:
        from engram_cli.interrupt import interrupted

        hint = "the same command goes on from there, or with --force begins again"
        raise interrupted(e, "the demo was interrupted", hint) from e


@dataclass(slots=True)
class Demo:
    """A demo being made in a folder: what is done of it."""

    folder: Path
    length: dict[str, Any]  # of each training: steps or minutes
    done: dict[str, dict[str, Any]] = field(default_factory=dict)  # what the commands that train or build said, by their names

    @classmethod
    def begin(cls, place: ExitStack, run: Path, length: dict[str, Any], force: bool) -> "Demo":
        """In the run's folder, or with --force beside what the run has, which is replaced when `place` is closed."""
        from hashing.base.errors import EngramError
        from runtime.replacement import WriterLock, replacing
        from runtime.run import Run

        earlier = cls._read(Run(run).folder)
        if earlier and force:
            place.enter_context(WriterLock(run))
            return cls(place.enter_context(replacing(run)), length)
        if earlier and earlier.length != length:
            had = " ".join(f"{count:g} {unit}" for unit, count in earlier.length.items())
            raise EngramError(f"the demo in {run} was of {had} a training", hint="--force makes another in its place")
        return earlier or cls(run, length)

    @classmethod
    def _read(cls, folder: Path) -> "Demo | None":
        """What an earlier demo left in the folder; None in a new one. Raises EngramError for any other folder."""
        from hashing.base.errors import EngramError
        from hashing.base.json_object import read_json

        journal = folder / "demo.json"
        if journal.exists():
            content = read_json(journal, 1 << 20)
            if content.value("config_sha256") not in (None, _sha256(folder / "config.json")):
                raise EngramError(
                    f"the training in {folder} is not the demo's: it was trained again", hint="name another place with --run"
                )
            return cls(folder, dict(content.child("length").members), dict(content.child("done").members))
        if found := sorted(path.name for path in folder.glob("*") if not path.name.startswith(".")):
            raise EngramError(
                f"{folder} holds {found[0]}, which engram demo did not make", hint="name another place with --run"
            )
        return None

    def _write(self) -> None:
        from hashing.base.atomic import write_text

        digest = _sha256(self.folder / "config.json")
        content = {"length": self.length, "done": self.done, "config_sha256": digest}
        write_text(self.folder / "demo.json", json.dumps(content, indent=1, sort_keys=True))

    def train(self) -> None:
        """Builds the vocabulary and trains with memory and without, as far as that is not done yet."""
        self._write()
        control = self.folder / CONTROL
        self._build(self.folder, "build-vocab", [])
        self._build(control, f"{CONTROL}: build-vocab", [str(self.folder / "tokenizer.json")])
        options = [f"--{unit}={count:g}" for unit, count in self.length.items()]
        options += [f"--set=precision={self._precision()}"]
        runs = {"train": (self.folder, options), f"{CONTROL}: train": (control, ["--no-memory", *options])}
        left = {name: Command.train(*found) for name, found in runs.items() if name not in self.done}
        try:
            self.done |= together(left)
        finally:
            self._write()

    def _precision(self) -> str:
        """That of the training that was begun, else what is fastest here. A control is computed in the same numbers."""
        from runtime.device import default_device, fast_precision
        from runtime.run import Run

        begun = [run for run in map(Run, (self.folder, self.folder / CONTROL)) if run.config_path.exists()]
        return begun[0].config().precision if begun else fast_precision(default_device())

    def _build(self, run: Path, name: str, arguments: list[str]) -> None:
        if name not in self.done:
            forced = ["--force"] if (run / "vocab.parquet").exists() else []
            self.done |= together({name: Command("build-vocab", [*arguments, *forced], run)})
            self._write()

    def use(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Generates from resident and from offloaded tables, and asks a server."""
        run, length = self.folder, ["--max-tokens", str(SAMPLE_TOKENS)]
        generated = {
            place: Command("generate", [PROMPT, *length, "--placement", place], run).said() for place in ("device", "disk")
        }
        with _served(run) as url:
            answered = _complete(url, run.resolve().name)
        return generated, answered

    def look_inside(self) -> dict[str, Any]:
        """Counts what the corpus has, keeps a page of a text as the model reads it, and looks at a phrase."""
        Command("stats", [], self.folder).said()
        Command("inspect", ["text", PAGE_TEXT, "--html", str(self.folder / PAGE), "--force"], self.folder).said()
        return Command("inspect", ["ngram", PHRASE], self.folder).said()


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


@dataclass(frozen=True, slots=True)
class Command:
    """One command on a run, as a person would type it."""

    name: str
    arguments: list[str]
    run: Path

    @classmethod
    def train(cls, run: Path, arguments: list[str]) -> "Command":
        """A training, or the rest of one that was interrupted."""
        return cls("train", ["--resume"] if (run / "config.json").exists() else arguments, run)

    def __str__(self) -> str:
        return " ".join(["engram", self.name, *(f'"{a}"' if " " in a else a for a in self.arguments), "--run", str(self.run)])

    def start(self, threads: int, **streams: Any) -> subprocess.Popen[str]:
        from engram_cli.interrupt import held_back

        words = [sys.executable, "-m", "engram_cli.entry", self.name, *self.arguments, "--run", str(self.run), "--json"]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with held_back():
            return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment, **streams)

    def said(self) -> dict[str, Any]:
        """Runs the command and returns its JSON."""
        return together({self.name: self})[self.name]


def together(commands: dict[str, Command]) -> dict[str, dict[str, Any]]:
    """Runs commands at the same time, each in its own process with its part of the cores, and returns their JSON.

    Whatever slows the machine down meanwhile slows all of them. What the first one says on its way goes to the terminal, what
    the others say is shown if they fail. Ctrl-C reaches the commands too, which save what they have; a second one ends them.
    Raises KeyboardInterrupt when they have ended.
    """
    from engram_cli.interrupt import interrupt_asked
    from hashing.base.cores import CORES

    threads = max(1, CORES // max(1, len(commands)))
    said: dict[str, dict[str, Any]] = {}
    with ExitStack() as opened, interrupt_asked() as asked:
        for command in commands.values():
            print(f"\n$ {command}" if len(commands) == 1 else f"$ {command} &", file=sys.stderr, flush=True)
        spools = [None, *(opened.enter_context(TemporaryFile("w+")) for _ in list(commands)[1:])]
        started = [
            opened.enter_context(command.start(threads, stderr=spool))
            for command, spool in zip(commands.values(), spools, strict=False)
        ]
        for name, process, spool in zip(commands, started, spools, strict=False):
            output = process.communicate()[0]
            if process.returncode and spool:
                spool.seek(0)
                sys.stderr.write(spool.read())
            if not process.returncode:
                said[name] = dict(json.loads(output))
        codes = [process.returncode for process in started]
    if asked():
        raise KeyboardInterrupt
    if failed := max((128 - code if code < 0 else code for code in codes), default=0):  # as shells tell of a signal
        raise typer.Exit(failed)
    return said


@contextmanager
def _served(run: Path) -> Iterator[str]:
    """The address of a server with the run's tables offloaded, on a free port, for the length of the block."""
    from engram_cli.interrupt import held_back

    print(f"\n$ engram serve --offload --port 0 --run {run}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "engram_cli.entry", "serve", "--offload", "--port", "0", "--run", str(run)]
    with held_back():
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            print(line, end="", file=sys.stderr)
            address = re.search(r"http://\S+", line)
            if address is None:
                raise typer.Exit(server.wait())
            yield address.group()
        finally:
            server.terminate()


def _complete(url: str, model: str) -> dict[str, Any]:
    from urllib.request import Request, urlopen

    body = json.dumps({"model": model, "prompt": PROMPT, "max_tokens": SAMPLE_TOKENS, "temperature": 0}).encode()
    print(f"POST {url}/v1/completions", file=sys.stderr)
    with urlopen(Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"}), timeout=120) as response:
        return dict(json.load(response))


def _summarise(
    run: Path, show: Demo, generated: dict[str, dict[str, Any]], answered: dict[str, Any], view: dict[str, Any]
) -> None:
    from engram_cli.output import print_table
    from hashing.base.errors import EngramError

    resident, offloaded = generated["device"], generated["disk"]
    if not resident["text"] == offloaded["text"] == answered["choices"][0]["text"]:
        raise EngramError("the text from the offloaded tables is not that from the resident ones")
    facts = [
        *_trained(run, show),
        ("tables resident", f"{resident['tokens_per_sec']:,.0f} tokens/s"),
        ("tables on disk", f"{offloaded['tokens_per_sec']:,.0f} tokens/s, the same text, also over HTTP"),
        *_seen(view),
        ("everything lies in", str(run)),
        ("look inside", (run / PAGE).resolve().as_uri()),
        ("go on with", f'engram inspect ngram "{PHRASE}" --run {run}'),
    ]
    print()
    print_table("Engram, the whole loop", ("", ""), facts, left=2)
    print(f"\nSample:\n{PROMPT}{resident['text']}")


def _trained(run: Path, show: Demo) -> Iterator[tuple[str, str]]:
    """What was built, and what the memory is worth: with it, without it in the same time, and taken away."""
    from engram_cli.output import byte_text
    from table.store.store import TableStore

    store = TableStore.open(run / "tables.zarr")
    vocab, trained, without = (show.done[name] for name in ("build-vocab", "train", f"{CONTROL}: train"))
    percent = f"{vocab['reduction_percent']:.1f} % fewer"
    yield "vocabulary", f"{vocab['tokens']:,} tokens → {vocab['canonical']:,} canonical ids ({percent})"
    yield "tables", f"{store.total_rows:,} rows, {byte_text(store.total_bytes)}"
    yield "trained with the memory", _validated(trained)
    yield "trained without, in equal time", _validated(without)
    yield "the memory is worth", f"{without['validation_nats'] - trained['validation_nats']:.3f} nats/token, for one seed"
    yield "memory suppressed (no control)", f"{trained['suppressed_nats']:.3f} nats/token"


def _validated(trained: dict[str, Any]) -> str:
    nats = f"{trained['validation_nats']:.3f} ± {trained['standard_error_nats']:.3f} nats/token"
    return f"{nats}, {trained['steps']:,} steps in {trained['elapsed_sec']:.0f} s"


def _seen(view: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The longest n-gram that ends the phrase, in the first layer."""
    layer, orders = next(iter(view["layers"].items()))
    order, ngram = max(orders["orders"].items())
    yield f"{order}-gram {' · '.join(map(repr, ngram['ngram']))}", f"{ngram['corpus_count']:,} times in the corpus"
    yield f"its rows in layer {layer}", ", ".join(f"{row:,}" for row in ngram["rows"])
    yield "their norms", ", ".join(f"{norm:.3f}" for norm in ngram["row_norms"])
