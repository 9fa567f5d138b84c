"""Printing: data on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

PIPED_WIDTH = 1000
MIB = 1 << 20
FOLDED_WIDTH = 10  # what a text may be folded to in a narrow terminal


def print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False))


def note(message: str) -> None:
    """For the person, not the pipe."""
    print(message, file=sys.stderr)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> None:
    """A table; the first `left` columns are text, the others numbers aligned right. Piped, it is as wide as it needs.

    Where the numbers do not fit a terminal side by side, further tables under the first have those that are left, beside the
    same text.
    """
    lines = [[text(cell) for cell in row] for row in rows]
    widest = [max([len(column), *(len(line[place]) for line in lines)]) for place, column in enumerate(columns)]
    least = [min(width, FOLDED_WIDTH) if place < left else width for place, width in enumerate(widest)]
    width = _terminal_width()
    for number, places in enumerate(_parts(least, left, width)):
        _print_part("further columns" if number else title, places, columns, lines, least, left, width)


def _terminal_width() -> int:
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else PIPED_WIDTH


def _parts(least: Sequence[int], left: int, width: int) -> list[list[int]]:
    """The columns of each table: all in one if that fits at its narrowest, else the texts with as many numbers as fit."""
    if sum(least) + len(least) - 1 <= width:
        return [[*range(len(least))]]
    parts: list[list[int]] = []
    for place in range(left, len(least)):
        part = parts[-1] if parts else []
        if parts and sum(least[i] for i in part) + least[place] + 3 * (len(part) + 1) + 1 <= width:
            part.append(place)
        else:
            parts.append([*range(left), place])
    return parts or [[*range(left)]]


def _print_part(
    title: str,
    places: Sequence[int],
    columns: Sequence[str],
    lines: Sequence[Sequence[str]],
    least: Sequence[int],
    left: int,
    width: int,
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for place in places:
        is_text = place < left
        justify: Any = "left" if is_text else "right"
        table.add_column(columns[place], justify=justify, overflow="fold", min_width=least[place], no_wrap=not is_text)
    for line in lines:
        table.add_row(*(line[place] for place in places))
    needed = sum(least[place] for place in places)
    if needed + 3 * len(places) + 1 > width:
        table.box, table.padding, table.show_edge = SIMPLE_HEAD, 0, False
    # Wider than the terminal, if a single number is: it wraps lines, where a narrower table would cut digits off.
    Console(highlight=False, width=max(width, needed + len(places) - 1)).print(table)


def text(cell: object) -> str:
    """A cell as people write it; markup in data is shown, not obeyed."""
    if cell is None:
        return "–"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 10_000 else f"{cell:,.4g}"
    return str(cell).replace("[", "\\[")


def byte_text(count: float, digits: int = 1) -> str:
    """A number of bytes as people write it, with so many digits after the point."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.{digits}f} {unit}"
        count /= 1024
    return f"{count:,.{digits}f} TiB"


def progress(unit: str) -> "Progress":
    """A bar on stderr with time left; silent when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def share_progress() -> "Progress":
    """A bar of which a task's `completed` is a share of 1; otherwise like `progress`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def byte_progress(label: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar in MiB that the yielded function moves on by a number of bytes; with a total of 0 it only counts."""
    done = 0
    with progress("MiB") as bars:
        task = bars.add_task(label, total=total_bytes / MIB if total_bytes else None)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bars.update(task, completed=done / MIB)

        yield advance
        bars.update(task, completed=total_bytes / MIB)
