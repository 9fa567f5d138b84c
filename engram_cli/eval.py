"""`engram eval`: what a model loses on a text, with its memory and with something else in the memory's place."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import (
    DEFAULT_RUN,
    BestCheckpoint,
    Encoding,
    Json,
    Offload,
    PlacementOption,
    RunDir,
    TextColumn,
    TextKey,
    checked_text,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from runtime.evaluation import Evaluation
    from runtime.judged_text import JudgedText
    from runtime.run import Run
    from runtime.trained_run import TrainedRun
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
    text_key: TextKey = "",
    text_column: TextColumn = "",
    encoding: Encoding = "",
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
    from runtime.device import default_device
    from runtime.evaluation import evaluate, variants
    from runtime.judged_text import JudgedText
    from runtime.run import Run
    from runtime.trained_run import TrainedRun

    reading = {"text_key": text_key, "text_column": text_column, "encoding": encoding}
    options: dict[str, Any] = {name: value for name, value in reading.items() if value}
    _check(texts or [], tokens, max_tokens, options)
    source, given, where = Run(run), _given(texts or [], options), chosen_placement(placement, offload)
    with source.reading():
        tokenizer, trained = source.tokenizer(), TrainedRun.load(source, default_device(), best)
        judged = [JudgedText.encode(name, text, tokenizer) for name, text in given]
        windows = _windows(source, trained, judged, max_tokens)
    compared = variants(trained, without or [])
    shown = list(compared)[:2] if tokens else []  # intact and suppressed
    with progress("batches") as bar:
        judging = bar.add_task("judging", total=windows.blocks)
        precision, lookup = trained.config.precision, trained.lookup(where)
        advance = partial(bar.advance, judging)
        found = evaluate(trained.model, precision, lookup, windows, compared, shown, advance)
    _report(source, found, windows, judged, json)
    _note_loss(judged, tokenizer)


def _note_loss(judged: Sequence["JudgedText"], tokenizer: "Tokenizer") -> None:
    """Says where bits per byte mislead."""
    from engram_cli.output import note
    from hashing.text.round_trip import loses_characters

    lossy = [text.name for text in judged if not text.is_whole]
    if lossy or (not judged and loses_characters(tokenizer)):
        where_lost = f" of {lossy[0]}" if lossy else ""
        note(f"note: the tokenizer loses characters{where_lost}: bits per byte are too low, as what is lost costs nothing")


def _check(texts: Sequence[str], tokens: bool, max_tokens: int | None, options: Mapping[str, Any]) -> None:
    """Raises UsageError for options that are not of what is judged."""
    from hashing.base.errors import UsageError

    if texts and max_tokens is not None:
        raise UsageError("--max-tokens is for the validation side; texts are judged whole", hint="leave it out")
    if tokens and not texts:
        raise UsageError("--tokens shows the tokens of a text, but none is given", hint='as in: engram eval "a text" --tokens')
    if options and not texts:
        option = next(iter(options)).replace("_", "-")
        raise UsageError(
            f"--{option} is for reading files, but none is given", hint="the validation side has been read already"
        )


def _given(arguments: Sequence[str], options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The name and the text of each argument, or of each document in it, read with the options of a Corpus.

    Notes on stderr what was passed over.
    """
    from engram_cli.options import note_reading
    from hashing.base.errors import UsageError
    from hashing.text.corpus import Corpus
    from runtime.judged_text import texts_of

    texts = []
    for argument in arguments:
        if argument == "-":
            texts.append(("standard input", _standard_input()))
        elif os.path.exists(argument):  # unlike Path.exists, False for what is too long for a path
            corpus = Corpus((Path(argument),), **options)
            texts += texts_of(corpus)
            note_reading(corpus)
        elif not argument:
            raise UsageError("a text is empty; it needs at least one token", hint="name a text or a file")
        elif len(argument.split()) == 1 and ("/" in argument or argument.endswith(FILE_ENDINGS)):
            raise UsageError(f"no such file or folder: {argument}", hint="a text that looks like a file's name goes through -")
        else:
            texts.append((repr(argument), checked_text(argument)))
    return texts


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


def _windows(source: "Run", trained: "TrainedRun", judged: Sequence["JudgedText"], max_tokens: int | None) -> "Side | Texts":
    from runtime.tokens import Tokens
    from runtime.validation import VALIDATION_TOKENS
    from runtime.windows import Side, Texts

    length = trained.config.recipe.length
    if judged:
        return Texts([text.token_ids for text in judged], length, trained.vocab.end_of_text_id)
    return Side(Tokens.open(source.train_folder / "tokens"), length, max_tokens or VALIDATION_TOKENS)


def _report(source: "Run", found: "Evaluation", windows: "Side | Texts", judged: Sequence["JudgedText"], json: bool) -> None:
    from engram_cli.evaluation_report import as_json, print_evaluation
    from engram_cli.output import print_json

    if json:
        print_json(as_json(source, found, windows, judged))
    else:
        print_evaluation(source, found, windows, judged)
