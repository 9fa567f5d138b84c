"""The `engram` command: one file per command, each imported when its name is typed."""

import errno
import sys

import typer

from engram_cli import bench, build_vocab, hash, stats
from hashing.errors import EngramError

app = typer.Typer(
    help="Conditional memory for language models: address, store, train, serve and inspect Engram tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("build-vocab")(build_vocab.build_vocab)
app.command("hash")(hash.hash_text)
app.add_typer(stats.app, name="stats")
app.add_typer(bench.app, name="bench")


def main() -> None:
    try:
        app()
    except EngramError as e:
        fail(str(e), e.hint, e.exit_code)
    except KeyboardInterrupt:
        fail("interrupted; nothing half-written was left behind", "", 130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as e:
        full = e.errno in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
        where = f": {e.filename}" if e.filename else ""
        fail(f"{e.strerror or e}{where}", "free some space, or name another place with --run" if full else "", 1)


def fail(message: str, hint: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
