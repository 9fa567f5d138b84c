"""What `engram eval` found, as JSON and for a person."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from engram_cli.output import note, print_table

if TYPE_CHECKING:
    from runtime.evaluation import Evaluation, Loss
    from runtime.judged_text import JudgedText
    from runtime.run import Run
    from runtime.windows import Side, Texts


def as_json(source: "Run", found: "Evaluation", windows: "Side | Texts", judged: Sequence["JudgedText"]) -> dict[str, Any]:
    from runtime.evaluation import MEAN_ROW, SUPPRESSED, WITHOUT

    losses = dict(found.losses)
    own = losses.pop(next(iter(losses)))
    suppressed, mean_row = losses.pop(SUPPRESSED, None), losses.pop(MEAN_ROW, None)
    document = {
        "tokens": found.tokens,
        "documents": _documents(found, windows),
        "nats_per_token": own.nats_per_token,
        "standard_error": own.standard_error,
        "perplexity": own.perplexity,
        "bits_per_byte": _bits_per_byte(own, windows, judged),
        "suppressed_nats": suppressed and suppressed.nats_per_token,
        "suppressed_difference_error": suppressed and suppressed.difference_error,
        "mean_row_nats": mean_row and mean_row.nats_per_token,
        "mean_row_difference_error": mean_row and mean_row.difference_error,
        "without": [
            {
                "name": name.removeprefix(WITHOUT),
                "nats": loss.nats_per_token,
                "difference_nats": loss.difference,
                "difference_error": loss.difference_error,
            }
            for name, loss in losses.items()
        ],
    }
    return document | ({"token_logprobs": list(_token_documents(source, found, judged))} if found.token_nats else {})


def _token_documents(source: "Run", found: "Evaluation", judged: Sequence["JudgedText"]) -> Iterator[dict[str, Any]]:
    """A token of a run without memory has no `suppressed_logprob`."""
    texts = source.vocab().texts
    names = [(number, token) for number, text in enumerate(judged) for token in text.token_ids]
    for (number, token), *nats in zip(names, *found.token_nats.values(), strict=True):
        keys = zip(("logprob", "suppressed_logprob"), nats, strict=False)
        yield {"text": number, "token": texts[token], "token_id": token, **{key: -float(value) for key, value in keys}}


def print_evaluation(source: "Run", found: "Evaluation", windows: "Side | Texts", judged: Sequence["JudgedText"]) -> None:
    from runtime.evaluation import MEAN_ROW, SUPPRESSED

    if found.token_nats:
        _print_tokens(source, found, judged)
    several = any(loss.standard_error is not None for loss in found.losses.values())
    error = ["±"] if several else []
    columns = ["", "nats per token", *error, "perplexity", "bits per byte"]
    rows = [[name, *_cells(loss, several, _bits_per_byte(loss, windows, judged))] for name, loss in found.losses.items()]
    if len(rows) > 1:
        columns += ["more", *error]
        rows[0] += ["", *("" for _ in error)]
        for row, loss in zip(rows[1:], list(found.losses.values())[1:], strict=True):
            row += [f"{loss.difference:+.4f}", *(_error(loss.difference_error) for _ in error)]
    documents = _documents(found, windows)
    of = f" of {documents:,} document{'s' if documents > 1 else ''}" if documents else ""
    print_table(
        f"Loss on {found.tokens:,} token{'s' if found.tokens > 1 else ''}{of}{'' if judged else ', validation side'}",
        columns,
        rows,
    )
    if several:
        note("± is a standard error by documents" + ("; that of a difference is of the same tokens" if len(rows) > 1 else ""))
    if SUPPRESSED in found.losses:
        note("suppressed is this model with its memory off, not what a model trained without one would reach")
    if MEAN_ROW in found.losses:
        _note_mean_row(source)


def _cells(loss: "Loss", with_error: bool, bits_per_byte: float) -> list[str]:
    error = [_error(loss.standard_error)] if with_error else []
    return [f"{loss.nats_per_token:.4f}", *error, f"{loss.perplexity:,.2f}", f"{bits_per_byte:.4f}"]


def _note_mean_row(source: "Run") -> None:
    from runtime.ablation import MEAN_ROWS

    spec = source.spec()
    largest = max(spec.rows(layer) for layer in spec.layers)
    if largest > MEAN_ROWS:
        note(f"the mean row is that of {MEAN_ROWS:,} rows of a layer's {largest:,}")


def _print_tokens(source: "Run", found: "Evaluation", judged: Sequence["JudgedText"]) -> None:
    documents = _token_documents(source, found, judged)
    suppressed = len(found.token_nats) > 1
    columns = ["token", "log-probability", *(["suppressed", "memory adds"] if suppressed else [])]
    for text in judged:
        rows = []
        for token in islice(documents, len(text.token_ids)):
            logprob = token["logprob"]
            other = token.get("suppressed_logprob", 0.0)
            rows.append(
                [repr(token["token"]), f"{logprob:.4f}", *([f"{other:.4f}", f"{logprob - other:+.4f}"] if suppressed else [])]
            )
        print_table(f"Tokens of {text.name}, in nats", columns, rows)


def _documents(found: "Evaluation", windows: "Side | Texts") -> int | None:
    """None where the run does not know where its documents end."""
    from runtime.windows import Side

    return None if isinstance(windows, Side) and windows.tokens.documents is None else found.documents


def _bits_per_byte(loss: "Loss", windows: "Side | Texts", judged: Sequence["JudgedText"]) -> float:
    """Of a text its own bytes count, of the validation side all of the side's."""
    from runtime.windows import Side

    if isinstance(windows, Side):
        per_byte = windows.tokens.per_byte("validation")
    else:
        per_byte = sum(len(text.token_ids) for text in judged) / sum(text.text_bytes for text in judged)
    return loss.nats_per_token / math.log(2) * per_byte


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
