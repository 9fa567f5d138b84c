"""`engram eval`: what a model loses on a text, with its memory and with something else in the memory's place."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.options import DEFAULT_RUN, BestCheckpoint, Json, Offload, PlacementOption, RunDir, checked_text

if TYPE_CHECKING:
    from runtime.evaluation import Evaluation
    from runtime.judged_text import JudgedText
    from runtime.run import Run
    from runtime.windows import Side, Texts

FILE_ENDINGS = (".txt", ".md", ".py", ".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".html", ".gz", ".zst")


def evaluate_texts(
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts, files or folders; - is standard input. Default: the run's validation side."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Also without a layer's memory (layer:1) or an order's n-grams (order:3); repeat for more."),
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Print each token's log-probability, of a text.")] = False,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the validation side, as a fair sample. Default: 65536.")
    ] = None,
    best: BestCheckpoint = False,
    offload: Offload = False,
    placement: PlacementOption = None,
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Measure a model on a text: nats per token, perplexity, bits per byte; with its memory and without.

    A text is judged whole. Its first token follows an end-of-text token; every other sees what is before it, at least half a
    window of the training's length where there is so much. The validation side is judged in the training's windows.

    "Mean row" gives every token the mean of a head's rows in place of its own row.

    Example: engram eval

    Example: engram eval notes.txt "def __init__(self):" --without order:3 --json

    Example: engram eval "By the way" --tokens
    """
    from engram_cli.options import chosen_placement
    from engram_cli.output import progress
    from hashing.base.errors import UsageError
    from runtime.device import default_device
    from runtime.evaluation import SUPPRESSED, evaluate, variants
    from runtime.run import Run
    from runtime.trained_run import TrainedRun

    if texts and max_tokens is not None:
        raise UsageError("--max-tokens is for the validation side; texts are judged whole", hint="leave it out")
    if tokens and not texts:
        raise UsageError("--tokens shows the tokens of a text, but none is given", hint='as in: engram eval "a text" --tokens')
    source = Run(run)
    judged = _judged(source, texts or [])
    where = chosen_placement(placement, offload)
    trained = TrainedRun.load(source, default_device(), best)
    compared = variants(trained.store, without or [])
    windows = _windows(source, judged, trained.config.recipe.length, max_tokens)
    shown = [name for name in compared if name == next(iter(compared)) or name == SUPPRESSED] if tokens else []
    with progress("batches") as bar:
        judging = bar.add_task("judging", total=windows.blocks)
        found = evaluate(
            trained.model,
            trained.config.precision,
            trained.lookup(where),
            windows,
            compared,
            shown,
            lambda count: bar.advance(judging, count),
        )
    _report(source, found, windows, judged, json)


def _judged(source: "Run", arguments: Sequence[str]) -> list["JudgedText"]:
    from hashing.base.errors import UsageError
    from runtime.judged_text import JudgedText, texts_of

    tokenizer, judged = source.tokenizer(), []
    for argument in arguments:
        if argument == "-":
            judged.append(JudgedText.encode("standard input", _standard_input(), tokenizer))
        elif os.path.exists(argument):  # unlike Path.exists, False for what is too long for a path
            judged += [JudgedText.encode(name, text, tokenizer) for name, text in texts_of(Path(argument))]
        elif not argument:
            raise UsageError("a text is empty; it needs at least one token", hint="name a text or a file")
        elif len(argument.split()) == 1 and ("/" in argument or argument.endswith(FILE_ENDINGS)):
            raise UsageError(f"no such file or folder: {argument}", hint="a text that looks like a file's name goes through -")
        else:
            judged.append(JudgedText.encode(repr(argument), checked_text(argument), tokenizer))
    return judged


def _standard_input() -> str:
    """Raises EngramError for what is no text."""
    from hashing.base.errors import EngramError

    content = sys.stdin.buffer.read()
    try:
        text = content.decode()
    except UnicodeDecodeError as e:
        raise EngramError(f"standard input is not UTF-8 text: byte 0x{content[e.start]:02x} cannot be decoded") from e
    if "\0" in text:
        raise EngramError("standard input is not text: it holds NUL bytes")
    return text


def _windows(source: "Run", judged: Sequence["JudgedText"], length: int, max_tokens: int | None) -> "Side | Texts":
    from runtime.tokens import Tokens
    from runtime.validation import VALIDATION_TOKENS
    from runtime.windows import Side, Texts

    if judged:
        return Texts([text.token_ids for text in judged], length, source.vocab().end_of_text_id)
    return Side(Tokens.open(source.train_folder / "tokens"), length, max_tokens or VALIDATION_TOKENS)


def _report(source: "Run", found: "Evaluation", windows: "Side | Texts", judged: Sequence["JudgedText"], json: bool) -> None:
    from engram_cli.evaluation_report import as_json, print_evaluation
    from engram_cli.output import note, print_json

    if json:
        print_json(as_json(source, found, windows, judged))
    else:
        print_evaluation(source, found, windows, judged)
    if lossy := next((text.name for text in judged if not text.is_whole), None):
        note(f"note: the tokenizer loses characters of {lossy}: bits per byte are too low, as nothing is paid for what is lost")
