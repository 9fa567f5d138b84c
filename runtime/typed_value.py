"""A value as JSON or TOML has it, as the type that a dataclass declares for it, or refused by name."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hashing.base.errors import EngramError
from hashing.spec import HashSpec


def typed(kind: Any, value: Any, where: str) -> Any:
    """The value as an instance of `kind`: a dataclass, a Literal, a tuple, a plain type, or one of these or None.

    Raises EngramError, beginning with `where`, for a value of another type and for keys that are missing or unknown.
    """
    if kind is HashSpec and isinstance(value, dict):
        return HashSpec.from_json(value)
    if is_dataclass(kind) and isinstance(value, dict):
        return _typed_fields(kind, value, where)
    if is_optional(kind):
        return None if value is None else typed(something(kind), value, where)
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(typed(get_args(kind)[0], item, where) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise EngramError(f"{where} is {value!r}, expected {type_name(kind)}")


def is_optional(kind: Any) -> bool:
    """Whether a type is `X | None`."""
    return NoneType in get_args(kind)


def something(kind: Any) -> Any:
    """What `X | None` is when it is not None; any other type as it is."""
    return next(part for part in get_args(kind) if part is not NoneType) if is_optional(kind) else kind


def type_name(kind: Any) -> str:
    """A type as a message has it; of `X | None` the name of X."""
    kind = something(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {type_name(get_args(kind)[0])}"
    return "true or false" if kind is bool else str(getattr(kind, "__name__", kind))


def _typed_fields(kind: Any, content: Mapping[str, Any], where: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(content) - set(known)):
        raise EngramError(f"{where} has unknown keys: {', '.join(unknown)}")
    required = {name for name, field in known.items() if field.default is MISSING}
    if missing := sorted(required - set(content)):
        raise EngramError(f"{where} lacks {', '.join(missing)}")
    hints = get_type_hints(kind)
    return kind(**{name: typed(hints[name], value, f"{where}: {name}") for name, value in content.items()})
