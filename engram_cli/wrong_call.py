"""A call that Typer cannot parse, told like every other error: one sentence and a hint, where Typer draws a panel."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import typer

from hashing.base.errors import UsageError

# What Typer raises for every such call. It exports only this one's child, from `click` or from a copy of it by version.
ParseError: type[Any] = typer.BadParameter.__mro__[1]

# What Typer says of a value that is no number or out of range, and how we say it.
EXPECTED = {
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a finite number": "a finite number",
    "greater than or equal to": "at least ",
    "less than or equal to": "at most ",
}
REFUSED = re.compile(
    rf"Invalid value for '(?P<option>[^']+)': Input should be (?P<what>{'|'.join(EXPECTED)}) ?(?P<limit>[-+\d.e]*)(,.*)?"
)


def help_was_shown(error: Any) -> bool:
    """Whether a group was named without a command: Typer has then printed the group's help, and says nothing more."""
    return not error.format_message()


def usage_error(error: Any, commands: Any, arguments: Sequence[str]) -> UsageError:
    """Typer's message as a sentence of ours, with a hint at the help of the command that was meant.

    `commands` is the tree of commands that the `arguments` were parsed by.
    """
    said = error.format_message().replace("Value error, ", "").replace(". Did you mean", "; did you mean").rstrip(".")
    if refused := REFUSED.fullmatch(said):
        option, expected = refused["option"], EXPECTED[refused["what"]] + refused["limit"]
        said = f"invalid value for '{option}': {_found(option, arguments)}expected {expected}"
    return UsageError(said[:1].lower() + said[1:], hint=" ".join(["engram", *named(commands, arguments), "--help"]))


def _found(option: str, arguments: Sequence[str]) -> str:
    """The value that was given for an option, as the beginning of what was expected in its place."""
    following = dict(pairwise(arguments))
    joined = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    value = joined.get(option, following.get(option))
    return "" if value is None else f"found {value}, "


def named(commands: Any, arguments: Sequence[str]) -> list[str]:
    """The leading arguments that name a group or a command of the tree."""
    names = []
    for argument in arguments:
        if argument not in getattr(commands, "commands", {}):
            break
        commands = commands.commands[argument]
        names.append(argument)
    return names
