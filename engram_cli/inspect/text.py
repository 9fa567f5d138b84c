"""`engram inspect text`: token by token, how far the gates open and what the memory is worth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import DEFAULT_RUN, BestCheckpoint, Force, Json, ModelFolder, ModelStore, RunDir, checked_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.inspect.page.content import Content
    from runtime.inspect.text import TextView


def text(
    text: Annotated[str | None, typer.Argument(help="The text to look at.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A file with the text, in place of one that is typed.")] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Also write a page of it, with its rows, into one file that needs nothing else."),
    ] = None,
    best: BestCheckpoint = False,
    model: ModelFolder = None,
    store: ModelStore = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show a text token by token: each layer's gates, and the loss with the memory and without.

    Under every token its gates stand as digits, 0 for below a tenth to 9 for nine tenths and more, and as bars; + and - mark
    tokens whose loss is at least a tenth of a nat lower or higher with the memory. What the memory adds at a token shows in the
    loss of the next. The text is read as engram eval reads it: after an end-of-text token, and in overlapping windows of the
    training's length where it is longer.

    Example: engram inspect text "def __init__(self, name):"

    Example: engram inspect text --file notes.txt --html notes.html

    Example: engram inspect text "The capital of France" --model Qwen3.8-Flash-Next --html france.html
    """
    from engram_cli.inspect.strip import print_text
    from engram_cli.output import print_json
    from hashing.base.atomic import refuse_overwrite

    shown = _given(text, file)
    if html:
        refuse_overwrite(html, force)
    if model is None:
        view, content = _of_run(run, best, shown)
    else:
        view, content = _of_library(model, store, shown, {"--best": best, "--run": run != DEFAULT_RUN})
    if html:
        _write_page(html, content(), shown)
    if json:
        print_json(view.to_json())
    else:
        print_text(view)


def _of_run(folder: Path, best: bool, text: str) -> "tuple[TextView, Callable[[], Content]]":
    """The text as a run sees it, and what opens a page of the run."""
    from runtime.device import default_device
    from runtime.inspect.page.content import RunContent
    from runtime.inspect.text import view_text
    from runtime.run import Run
    from runtime.trained_run import TrainedRun

    run = Run(folder)
    run.require_memory()
    trained = TrainedRun.load(run, default_device(), best)
    return view_text(trained, text), lambda: RunContent.open(run, trained)


def _of_library(
    folder: Path, store: Path | None, text: str, others: dict[str, bool]
) -> "tuple[TextView, Callable[[], Content]]":
    """Raises UsageError for `others`, options that are for a trained run, and EngramError as the library's loader does."""
    from threading import Lock

    from hashing.base.errors import UsageError
    from runtime.huggingface import load, tokenizer_of
    from runtime.inspect.library_text import view_library_text
    from runtime.inspect.page.library_content import LibraryContent

    for option, is_given in others.items():
        if is_given:
            raise UsageError(f"--model and {option} are both given, but {option} is for a run", hint="leave one of them out")
    model, tokenizer = load(folder, "mapped", store), tokenizer_of(folder)
    return view_library_text(model, tokenizer, text), lambda: LibraryContent.open(folder, store, model, Lock())


def _write_page(path: Path, content: "Content", text: str) -> None:
    from engram_cli.output import byte_text, note, share_progress
    from hashing.base.atomic import write_text
    from runtime.inspect.page.frozen import frozen_page

    with share_progress() as bar:
        task = bar.add_task("rows of the page", total=1.0)
        page = frozen_page(content, text, lambda share: bar.update(task, completed=share))
    write_text(path, page)
    for missing in content.subject.notes:
        note(missing)
    note(f"{path}: a page of {byte_text(path.stat().st_size)}")


def _given(text: str | None, file: Path | None) -> str:
    """The text of the argument or of the file. Raises UsageError where there is none, both, or more than one in the file."""
    from hashing.base.errors import UsageError
    from hashing.text.corpus import Corpus
    from runtime.judged_text import texts_of

    if (text is None) == (file is None):
        found = "neither" if text is None else "both"
        raise UsageError(
            f"a text or --file FILE says what to look at, found {found}", hint='as in: engram inspect text "a text"'
        )
    if file is None:
        return checked_text(text or "")
    documents = texts_of(Corpus((file,)))
    _, only = next(documents, ("", ""))
    if next(documents, None) is not None:
        raise UsageError(f"{file} holds several texts, expected one", hint="name a file of plain text")
    return only
