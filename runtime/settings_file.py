"""Settings as TOML: what `--config` reads, and what `engram config` prints with a comment for every field.

`preset` and `precision` stand at the top, the others in the sections `[model]`, `[memory]` and `[recipe]`. A field that may be
left open is then "none", and so is `memory` in place of its section. A file need not be complete: it changes a preset.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from hashing.base.errors import EngramError, UsageError
from hashing.base.regular_file import regular_size
from runtime.config import Recipe
from runtime.setting import Declared, Setting, declared
from runtime.settings import MemorySettings, ModelSettings, Settings
from runtime.typed_value import is_optional, typed

NONE = "none"  # what stands for a field that is left open, since TOML has no null
SECTIONS: dict[str, type] = {"model": ModelSettings, "memory": MemorySettings, "recipe": Recipe}
WITHOUT_MEMORY = Declared(Literal["none"], Setting("leaves the memory out; otherwise a section"))
MAX_BYTES = 1 << 20
WIDEST_VALUE = 40  # beyond which a comment is not aligned with those beside it


def all_settings() -> dict[str, Declared]:
    """Every setting by its name with its section, as `model.blocks`."""
    found = {**declared(Settings), "memory": WITHOUT_MEMORY}
    for section, kind in SECTIONS.items():
        found |= {f"{section}.{name}": one for name, one in declared(kind).items()}
    return found


def read_settings(path: Path) -> dict[str, Any]:
    """What a file sets: values, of any type as yet, by names with their sections.

    Raises EngramError when there is no such file or it is not TOML.
    """
    if (size := regular_size(path)) > MAX_BYTES:
        raise EngramError(f"{path} is {size:,} bytes long, expected {MAX_BYTES:,} at most")
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise EngramError(f"{path} is not TOML: {e}", hint="engram config prints an example") from e
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": inside for inner, inside in value.items()}
        else:
            found[name] = value
    return found


def checked_value(name: str, value: Any, where: str) -> Any:
    """A value as TOML has it, as the setting of that name takes it.

    Raises UsageError, beginning with `where` it was set, for a value of another type.
    """
    found = all_settings()[name]
    if value == NONE and (found is WITHOUT_MEMORY or is_optional(found.kind)):
        return None
    try:
        return typed(found.kind, value, f"{where}: {name}")
    except EngramError as e:
        raise UsageError(str(e), hint=f"{name}: {found.setting.described}") from e


def to_toml(settings: Settings) -> str:
    """A complete file with a comment for every field; read over any preset, it gives the same settings."""
    content, top = asdict(settings), declared(Settings)
    first = {name: content[name] for name in top}
    if settings.memory is None:
        first, top = {**first, "memory": None}, {**top, "memory": WITHOUT_MEMORY}
    lines = _lines(first, top)
    for section, kind in SECTIONS.items():
        if content[section] is not None:
            lines += ["", f"[{section}]", *_lines(content[section], declared(kind))]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Any], meanings: Mapping[str, Declared]) -> list[str]:
    """A line for each value, its comment after it."""
    written = {name: f"{name} = {_written(value)}" for name, value in values.items()}
    width = max(len(text) for text in written.values() if len(text) <= WIDEST_VALUE)
    return [f"{text:{width}}  # {meanings[name].setting.described}" for name, text in written.items()]


def _written(value: Any) -> str:
    """A value as TOML has it."""
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML wants this one escaped, JSON does not
    return repr(value)
