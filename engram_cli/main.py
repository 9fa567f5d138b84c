"""The `engram` command: one file per command, each imported when its name is typed."""

import errno
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from engram_cli import build_vocab, config, demo, eval, generate, hash, plot, serve, sweep, train
from engram_cli.bench import group as bench
from engram_cli.inspect import group as inspect
from engram_cli.interrupt import interrupted, let_through
from engram_cli.plan import group as plan
from engram_cli.probe import group as probe
from engram_cli.stats import group as stats
from engram_cli.table import group as table
from engram_cli.wrong_call import ParseError, help_was_shown, usage_error
from hashing.base.errors import EngramError, UsageError

PACKAGE = "engram-tables"


class Commands(TyperGroup):
    def invoke(self, context: Any) -> Any:
        """Runs a command; a Ctrl-C becomes an error with a sentence, before Typer turns it into silence."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt as e:
            raise interrupted(e) from e


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"engram {version(PACKAGE)}")
    except PackageNotFoundError as e:
        raise EngramError(f"{PACKAGE} is not installed, so its version is not known", hint="pip install . installs it") from e
    raise typer.Exit


@app.callback()
def engram(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Conditional memory for language models: address, store, train, serve and inspect Engram tables."""


app.command("build-vocab")(build_vocab.build_vocab)
app.command("hash")(hash.hash_text)
app.command("config")(config.config)
app.command("train")(train.train)
app.command("sweep")(sweep.sweep)
app.command("plot")(plot.plot)
app.command("eval")(eval.evaluate_texts)
app.command("generate")(generate.generate)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.add_typer(inspect.app, name="inspect")
app.add_typer(probe.app, name="probe")
app.add_typer(table.app, name="table")
app.add_typer(plan.app, name="plan")
app.add_typer(stats.app, name="stats")
app.add_typer(bench.app, name="bench")


def run(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name and returns its exit code; raises UsageError where they cannot be parsed."""
    commands: Any = typer.main.get_command(app)
    try:
        return commands.main(arguments, prog_name="engram", standalone_mode=False) or 0
    except ParseError as e:
        if help_was_shown(e):
            return UsageError.exit_code
        raise usage_error(e, commands, arguments) from e


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code. `arguments` are those of the process, where none are given."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        let_through()
        sys.exit(run(sys.argv[1:] if arguments is None else arguments))
    except EngramError as e:
        fail(str(e), e.hint, e.exit_code)
    except KeyboardInterrupt:
        fail("interrupted", "", 130)
    except MemoryError as e:
        fail(f"there is not enough memory: {e}", "ask for less at a time", 1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as e:
        full = e.errno in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
        where = f": {e.filename}" if e.filename else ""
        fail(f"{e.strerror or e}{where}", "free some space, or name another place" if full else "", 1)


def fail(message: str, hint: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
