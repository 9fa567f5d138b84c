"""Setting: what a field that a user may set means and which values it takes, told once, beside the field's type.

A dataclass declares one as `blocks: Annotated[int, Setting("Transformer blocks", least=1)]`. The check of its values, the
comments of a configuration in TOML and the messages about wrong values all follow from that.
"""

from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, get_type_hints

from hashing.base.errors import UsageError
from hashing.base.json_object import INT64_MAX, brief
from hashing.text.corpus import SURROGATE


@dataclass(frozen=True, slots=True)
class Setting:
    """The limits hold for numbers, and for each number of a tuple."""

    meaning: str  # a phrase, with the unit where there is one
    least: float | None = None
    most: float = INT64_MAX
    above: float | None = None  # like `least`, but itself not allowed

    @property
    def limits(self) -> str:
        """The limits in words; empty where there is nothing to say."""
        words = [] if self.above is None else [f"above {self.above:g}"]
        words += [] if self.least is None else [f"at least {self.least:g}"]
        words += [] if self.most == INT64_MAX else [f"at most {self.most:,.15g}"]
        return ", ".join(words)

    def allows(self, value: float) -> bool:
        if not isfinite(value) or value > self.most:
            return False
        return (self.least is None or value >= self.least) and (self.above is None or value > self.above)


def settings_of(kind: type) -> dict[str, Setting]:
    """The settings of a dataclass by their names, in order; fields that are not declared as one are left out."""
    hints = get_type_hints(kind, include_extras=True)
    notes = {field.name: getattr(hints[field.name], "__metadata__", ()) for field in fields(kind)}
    return {name: note for name, given in notes.items() for note in given if isinstance(note, Setting)}


def check(instance: Any, section: str) -> None:
    """Raises UsageError, naming it within its section, for a number beyond its limits and a text that no file can hold."""
    for name, setting in settings_of(type(instance)).items():
        value = getattr(instance, name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not setting.allows(number):
                raise UsageError(f"{section}.{name} is {brief(value)}, expected {setting.limits or 'a finite number'}")
        if isinstance(value, str) and ("\0" in value or SURROGATE.search(value)):
            raise UsageError(f"{section}.{name} is {value!r}, which is no text")
