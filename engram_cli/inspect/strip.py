"""A text's tokens with their gates under them, for a terminal: coloured where it shows colours, readable where it does not."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.inspect.text import TextView

BARS = "▁▂▃▄▅▆▇███"  # for each tenth of a gate
COLOURS = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725")
DARK_FROM = 5  # the tenth whose colour is light enough for dark letters
NOTABLE_NATS = 0.1
PIPED_COLUMNS = 100
VISIBLE = str.maketrans({"\n": "⏎", "\r": "␍", "\t": "⇥"})

Cell = tuple[str, str]
"""A text, and its style."""


def print_text(view: "TextView") -> None:
    """The strip, a table of all tokens, and what the memory saves in all."""
    from engram_cli.output import note

    _print_strip(view)
    _print_losses(view)
    note("without is this model with its memory off, not what a model trained without one would reach")
    if len(view.tokens) > view.window_tokens:
        note(f"note: {len(view.tokens):,} tokens are read in windows of {view.window_tokens:,}, which overlap by half")


def _print_strip(view: "TextView") -> None:
    from rich.cells import cell_len, set_cell_size
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=PIPED_COLUMNS)
    gates = {f"layer {name}": values for name, values in _streams(view).items()}
    indent = max(map(len, gates)) + 2
    room = max(8, console.width - indent)
    shown = [_visible(token) for token in view.tokens]
    widths = [min(cell_len(token), room) for token in shown]
    rows: dict[str, list[Cell]] = {
        "": [(set_cell_size(token, width), "") for token, width in zip(shown, widths, strict=True)],
        **{name: [_gate(*pair) for pair in zip(values, widths, strict=True)] for name, values in gates.items()},
        "saves": [_effect(*pair) for pair in zip(view.effect_nats, widths, strict=True)],
    }
    for first, last in _lines(widths, room):
        for name, cells in rows.items():
            line = Text(name.ljust(indent)).append_tokens((cell, style) for cell, style in cells[first:last])
            console.print(line, no_wrap=True, overflow="ignore", crop=False)
        console.print()


def _streams(view: "TextView") -> dict[str, list[float]]:
    """The gates of each layer and stream by its name: the layer, or where it has several streams `layer.stream`."""
    named = {}
    for layer, tokens in view.gates.items():
        for stream in range(len(tokens[0])):
            named[f"{layer}.{stream}" if len(tokens[0]) > 1 else f"{layer}"] = [streams[stream] for streams in tokens]
    return named


def _visible(token: str) -> str:
    """A token's text on one line, in characters that have a width."""
    from rich.cells import cell_len

    shown = "".join(c if c.isprintable() else "·" for c in token.translate(VISIBLE))
    return shown if cell_len(shown) else "·"


def _lines(widths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """The first and the last token but one of each line that fits."""
    first, used = 0, 0
    for number, width in enumerate(widths):
        if used + width > room:
            yield first, number
            first, used = number, 0
        used += width
    yield first, len(widths)


def _gate(gate: float, width: int) -> Cell:
    """The tenth that a gate is in, followed by bars as far as its token goes."""
    tenth = min(int(10 * gate), 9)
    letters = "black" if tenth >= DARK_FROM else "white"
    return f"{tenth}".ljust(width, BARS[tenth]), f"{letters} on {COLOURS[tenth]}"


def _effect(nats: float | None, width: int) -> Cell:
    """Whether the memory lowers a token's loss notably, or raises it."""
    if nats is None or abs(nats) < NOTABLE_NATS:
        return " " * width, ""
    mark, colour = ("+", "green") if nats > 0 else ("-", "red")
    return mark.ljust(width), colour


def _print_losses(view: "TextView") -> None:
    from engram_cli.output import print_table

    streams = _streams(view)
    losses = zip(view.loss_nats, view.suppressed_nats, view.effect_nats, strict=True)
    rows = [
        [repr(token), *map(_nats, (own, without)), _nats(saved, "+"), *(f"{gates[i]:.2f}" for gates in streams.values())]
        for i, (token, (own, without, saved)) in enumerate(zip(view.tokens, losses, strict=True))
    ]
    sums = (sum(nats for nats in losses if nats is not None) for losses in (view.loss_nats, view.suppressed_nats))
    rows.append(["sum", *map(_nats, sums), _nats(view.difference_nats, "+"), *("" for _ in streams)])
    print_table(
        "Nats of each token, and gates", ("token", "loss", "without", "saved", *(f"gate {name}" for name in streams)), rows
    )


def _nats(nats: float | None, sign: str = "") -> str:
    return "–" if nats is None else f"{nats:{sign}.4f}"
