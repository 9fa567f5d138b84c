"""Choice: the settings that a preset, a file and options come to.

Each changes what the one before has said: the preset, the file of `--config`, `--set`, and the options with names of their own.
Within one of them nothing may be said twice or contradict another thing; a later one may overrule an earlier one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from hashing.base.errors import UsageError
from runtime.settings import ADDRESSING, Settings
from runtime.settings_file import SECTIONS, all_settings, checked_value, read_settings
from runtime.train.presets import DEFAULT_PRESET, preset_settings
from runtime.typed_value import something

MAX_DIGITS = 40
SIMILARITY = 0.5  # of a name to what was typed, from which it may have been meant


@dataclass(frozen=True, slots=True)
class Change:
    """Values by the names of their settings, and where they were set, for messages."""

    where: str
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Raises UsageError for values that contradict one another."""
        if self.says("recipe.steps") and self.says("recipe.minutes"):
            raise UsageError(
                f"{self.where}: recipe.steps and recipe.minutes are both set, expected one of the two",
                hint="steps or minutes say how long to train: leave one out",
            )
        if self.leaves_memory_out and (name := self.first_of("memory")):
            raise UsageError(f"{self.where}: {name} is set, but the memory is left out", hint="leave one of the two out")

    def says(self, name: str) -> bool:
        return self.values.get(name) is not None

    @property
    def leaves_memory_out(self) -> bool:
        return "memory" in self.values

    def first_of(self, section: str) -> str:
        """The first setting of a section that is set; empty where there is none."""
        return next((name for name in self.values if name.startswith(f"{section}.")), "")

    def applied(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """All values after the change; steps take the place of minutes, and minutes of steps."""
        name = self.first_of("memory")
        if name and "memory" in before:
            raise UsageError(
                f"{self.where}: {name} is set, but the memory has been left out before", hint='leave out memory = "none"'
            )
        after = {**before, **self.values}
        for one, other in (("recipe.steps", "recipe.minutes"), ("recipe.minutes", "recipe.steps")):
            if self.says(one):
                after[other] = None
        return after


def chosen_settings(
    *,
    preset: str = "",
    config: Path | None = None,
    sets: Sequence[str] = (),
    spec: str = "",
    no_memory: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings that a preset, a file, texts such as `model.blocks=4` and options come to.

    `options` are values by the names of their settings; None stands for an option that is not given. Raises UsageError for a
    setting that there is not, a value that is not the setting's, and for what contradicts one another.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    by_text = set_change(sets)
    named = ", ".join(f"--{_last(name).replace('_', '-')}" for name in given)
    changes = [by_text, Change(named, {**given, "memory": None} if no_memory else given)]
    if no_memory:
        _refuse_memory(by_text, spec)
    if spec:
        _refuse_addressing(by_text, spec)
    if config is not None:
        in_file = _in_file(config)
        preset = _agreed_preset(preset, in_file, config)
        changes.insert(0, in_file)
    chosen = changed(preset_settings(preset or DEFAULT_PRESET), changes)
    if spec and chosen.memory is None:
        raise UsageError(f"--spec {spec} is given, but the memory is left out", hint="leave one of the two out")
    return chosen


def changed(settings: Settings, changes: Sequence[Change]) -> Settings:
    """The settings after changes, the later of which win."""
    values: dict[str, Any] = {}
    for change in changes:
        values = change.applied(values)
    for section in SECTIONS:
        inside = {name.removeprefix(f"{section}."): value for name, value in values.items() if name.startswith(f"{section}.")}
        if section in values:
            settings = replace(settings, memory=None)
        elif inside:
            settings = _with(settings, section, inside)
    return replace(settings, precision=values["precision"]) if "precision" in values else settings


def _with(settings: Settings, section: str, values: Mapping[str, Any]) -> Settings:
    before = getattr(settings, section)
    if before is None:
        raise UsageError(
            f"{section}.{next(iter(values))} is set, but there is no memory to begin from",
            hint="begin from a preset with memory",
        )
    sections: dict[str, Any] = {section: replace(before, **values)}
    return replace(settings, **sections)


def set_change(sets: Sequence[str]) -> Change:
    """What texts such as `model.blocks=4` set. Raises UsageError for one that sets nothing, or another thing than another."""
    values: dict[str, Any] = {}
    for text in sets:
        name, equals, written = text.partition("=")
        if not equals:
            raise UsageError(f'--set {text}: expected KEY=VALUE, found no "="', hint="as in --set model.blocks=4")
        check_name(name, "--set")
        if name == "preset":
            raise UsageError(f"--set {text}: a preset is what settings are changed of", hint=f"--preset {written}")
        value = checked_value(name, _read(all_settings()[name].kind, written), "--set")
        if name in values and values[name] != value:
            raise UsageError(f"--set gives {name} twice, as {values[name]} and as {value}", hint="leave one of them out")
        values[name] = value
    return Change("--set", values)


def _in_file(path: Path) -> Change:
    found = read_settings(path)
    for name in found:
        check_name(name, str(path))
    return Change(str(path), {name: checked_value(name, value, str(path)) for name, value in found.items()})


def check_name(name: str, where: str) -> None:
    """Raises UsageError, with the nearest right one, for a setting that there is not."""
    names = list(all_settings())
    if name in names:
        return
    last = name.rpartition(".")[2]
    same = [known for known in names if known.rpartition(".")[2] == last]
    near = same or get_close_matches(name, names, 1, SIMILARITY)
    near = near or [known for known in names if known.rpartition(".")[2] in get_close_matches(last, map(_last, names), 1)]
    hint = f"did you mean {' or '.join(near)}?" if near else "engram config shows them all"
    raise UsageError(f"{where}: there is no setting {name!r}", hint)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _read(kind: Any, text: str) -> Any:
    """A text from the command line as TOML would have the value; where it cannot be one of the kind, the text itself."""
    inner = something(kind)
    if get_origin(inner) is tuple:
        return [_read(get_args(inner)[0], part.strip()) for part in text.split(",")] if text else []
    if inner is bool:
        return {"true": True, "false": False}.get(text, text)
    if inner is int and re.fullmatch(rf"[+-]?[0-9][0-9_]{{0,{MAX_DIGITS}}}", text):
        return int(text.replace("_", ""))
    if inner is float:
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _agreed_preset(option: str, in_file: Change, path: Path) -> str:
    own = in_file.values.get("preset", option)
    if option and own != option:
        raise UsageError(f"--preset {option} is given, but {path} changes the preset {own}", hint="leave one of the two out")
    return str(own)


def _refuse_memory(change: Change, spec: str) -> None:
    if (name := change.first_of("memory")) or spec:
        found = f"--set {name}" if name else f"--spec {spec}"
        raise UsageError(f"--no-memory leaves out what {found} is about", hint="leave one of the two out")


def _refuse_addressing(change: Change, spec: str) -> None:
    if name := next((name for name in ADDRESSING if f"memory.{name}" in change.values), ""):
        raise UsageError(f"--set memory.{name} is given, but --spec {spec} decides that", hint="leave one of the two out")
