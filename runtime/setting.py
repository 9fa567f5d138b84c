"""Setting: what a field that a user may set means and which values it takes, told once, beside the field's type.

A dataclass declares one as `blocks: Annotated[int, Setting("Transformer blocks", least=1)]`. The check of its values, the
comments of a configuration in TOML and the messages about wrong values all follow from that.
"""

from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, get_type_hints

from hashing.base.errors import UsageError
from hashing.base.json_object import INT64_MAX, brief
from hashing.text.text_file import SURROGATE


@dataclass(frozen=True, slots=True)
class Setting:
    """The limits hold for numbers, and for each number of a tuple."""

    meaning: str  # a phrase, with the unit where there is one
    least: float | None = None
    most: float = INT64_MAX
    above: float | None = None  # like `least`, but itself not allowed

    @property
    def described(self) -> str:
        """The meaning, with the limits where there are any."""
        if self.above is not None:
            return f"{self.meaning} (above {self.above:g})"
        if self.least is None:
            return self.meaning
        limits = f"at least {self.least:g}" if self.most == INT64_MAX else f"{self.least:g} to {self.most:,}"
        return f"{self.meaning} ({limits})"

    def lacks(self, number: float) -> str:
        """What would have been expected instead of a number; empty where the number is allowed."""
        if not isfinite(number):
            return "a finite number"
        if number > self.most:
            return f"at most {self.most:,}"
        if self.least is not None and number < self.least:
            return f"at least {self.least:g}"
        return f"above {self.above:g}" if self.above is not None and number <= self.above else ""


@dataclass(frozen=True, slots=True)
class Declared:
    """A setting with the type of its values."""

    kind: Any
    setting: Setting


def declared(kind: type) -> dict[str, Declared]:
    """The settings of a dataclass by their names, in order; fields that are not declared as one are left out."""
    hints, kinds = get_type_hints(kind, include_extras=True), get_type_hints(kind)
    notes = {field.name: getattr(hints[field.name], "__metadata__", ()) for field in fields(kind)}
    return {name: Declared(kinds[name], note) for name, given in notes.items() for note in given if isinstance(note, Setting)}


def check(instance: Any, section: str) -> None:
    """Raises UsageError, naming it within its section, for a number beyond its limits and a text that no file can hold."""
    for name, found in declared(type(instance)).items():
        value, hint = getattr(instance, name), f"{section}.{name}: {found.setting.described}"
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and (expected := found.setting.lacks(number)):
                raise UsageError(f"{section}.{name} is {brief(value)}, expected {expected}", hint)
        if isinstance(value, str) and ("\0" in value or SURROGATE.search(value)):
            raise UsageError(f"{section}.{name} is {value!r}, which is no text", hint)
