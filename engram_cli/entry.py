"""The way in: a Ctrl-C that comes while the commands are being loaded is told in a sentence, like every later one."""

import sys


def main() -> None:
    """Runs the command of the process's arguments, and exits with its code."""
    try:
        from engram_cli.main import main as command
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
