"""`engram inspect text`: token by token, how far the gates open and what the memory is worth."""

from pathlib import Path
from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, BestCheckpoint, Json, RunDir, checked_text


def text(
    text: Annotated[str | None, typer.Argument(help="The text to look at.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A file with the text, in place of one that is typed.")] = None,
    best: BestCheckpoint = False,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Show a text token by token: each layer's gates, and the loss with the memory and without.

    Under every token its gates stand as digits, 0 for below a tenth to 9 for nine tenths and more, and as bars; + and - mark
    tokens whose loss is at least a tenth of a nat lower or higher with the memory. What the memory adds at a token shows in the
    loss of the next. The text is read as engram eval reads it: after an end-of-text token, and in overlapping windows of the
    training's length where it is longer.

    Example: engram inspect text "def __init__(self, name):"

    Example: engram inspect text --file notes.txt --json
    """
    from engram_cli.inspect.strip import print_text
    from engram_cli.output import print_json
    from runtime.device import default_device
    from runtime.inspect.text import view_text
    from runtime.run import Run
    from runtime.trained_run import TrainedRun

    shown, source = _given(text, file), Run(run)
    source.require_memory()
    view = view_text(TrainedRun.load(source, default_device(), best), shown)
    if json:
        print_json(view.to_json())
    else:
        print_text(view)


def _given(text: str | None, file: Path | None) -> str:
    """The text of the argument or of the file. Raises UsageError where there is none, both, or more than one in the file."""
    from hashing.base.errors import UsageError
    from runtime.judged_text import texts_of

    if (text is None) == (file is None):
        found = "neither" if text is None else "both"
        raise UsageError(
            f"a text or --file FILE says what to look at, found {found}", hint='as in: engram inspect text "a text"'
        )
    if file is None:
        return checked_text(text or "")
    documents = texts_of(file)
    _, only = next(documents, ("", ""))
    if next(documents, None) is not None:
        raise UsageError(f"{file} holds several texts, expected one", hint="name a file of plain text")
    return only
