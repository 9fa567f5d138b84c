"""RunConfig: everything a run's model is and how it is trained. Only this module reads and writes `config.json`."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hashing.base.atomic import write_text
from hashing.base.errors import EngramError, UsageError
from hashing.base.json_object import INT64_MAX, read_json
from hashing.spec import HashSpec
from runtime.model.config import ModelConfig

Precision = Literal["float32", "bfloat16"]
FORMAT = 2
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a run is trained."""

    steps: int
    batch: int  # sequences
    length: int  # tokens of each
    learning_rate: float
    row_rate_factor: float = 5.0  # rows learn this much faster (paper, section 4)
    weight_decay: float = 0.1
    warmup_share: float = 0.04  # of the steps
    row_std: float = 0.02
    evaluations: int = 5  # over the run, at even distances; a checkpoint goes with each
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.length, self.evaluations) < 1:
            raise UsageError(f"steps, batch, length and evaluations are at least 1, found {self}")
        if not 0 <= self.seed <= INT64_MAX:
            raise UsageError(f"the seed is {self.seed}, expected 0 to {INT64_MAX}", hint="any number in the range will do")


@dataclass(frozen=True, slots=True)
class RunConfig:
    preset: str  # the name it began from
    spec: HashSpec
    model: ModelConfig  # with its MemoryConfig
    recipe: Recipe
    precision: Precision  # of the products while training

    def __post_init__(self) -> None:
        memory = self.model.memory
        for name, found, expected in (
            ("memory layers", memory.layers, self.spec.layers),
            ("dilation", memory.dilation, self.spec.max_order),
            ("columns left over by the memory's width", memory.width % self.spec.columns, 0),
        ):
            if found != expected:
                raise EngramError(f"the model does not fit its hash spec: {name} {found}, expected {expected}")

    @property
    def head_dim(self) -> int:
        """Numbers of a row."""
        return self.model.memory.width // self.spec.columns

    def save(self, path: Path) -> None:
        content = {"format": FORMAT, **asdict(self)}
        write_text(path, json.dumps(content, indent=1, sort_keys=True))

    @classmethod
    def load(cls, path: Path) -> "RunConfig":
        """Raises EngramError for what is not JSON, lacks a key, has one too many, or holds a value of another type."""
        content = dict(read_json(path, MAX_BYTES).members)
        if "format" not in content:
            content = _from_format_1(content, path)
        if (found := content.pop("format")) != FORMAT:
            raise EngramError(f"{path} is of format {found!r}; this version reads format {FORMAT}")
        config: RunConfig = _parsed(cls, content, str(path))
        return config


def _from_format_1(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """What version 0.1 wrote: the memory's shape lay among the model's keys, and the width of a row beside them."""
    moved = {"layers": "memory_layers", "width": "memory_width", "dilation": "max_order"}
    same = ("gate", "conv", "conv_zero_init")
    try:
        model = dict(content["model"])
        memory = {new: model.pop(old) for new, old in moved.items()} | {name: model.pop(name) for name in same}
        del content["head_dim"]
    except (KeyError, TypeError, ValueError) as e:
        raise EngramError(f"{path} is not what engram train writes: it has no format", hint="train again with --force") from e
    return {**content, "format": FORMAT, "model": {**model, "memory": memory}}


def _parsed(kind: Any, value: Any, where: str) -> Any:
    """A value as JSON has it, as an instance of `kind`: a dataclass, a Literal, a tuple or a plain type. Raises EngramError."""
    if kind is HashSpec and isinstance(value, dict):
        return HashSpec.from_json(value)
    if is_dataclass(kind) and isinstance(value, dict):
        return _parsed_fields(kind, value, where)
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_parsed(get_args(kind)[0], item, where) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    expected = " or ".join(map(str, get_args(kind))) if get_origin(kind) is Literal else getattr(kind, "__name__", kind)
    raise EngramError(f"{where} is {value!r}, expected {expected}")


def _parsed_fields(kind: Any, content: Mapping[str, Any], where: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(content) - set(known)):
        raise EngramError(f"{where} has unknown keys: {', '.join(unknown)}")
    required = {name for name, field in known.items() if field.default is MISSING}
    if missing := sorted(required - set(content)):
        raise EngramError(f"{where} lacks {', '.join(missing)}")
    hints = get_type_hints(kind)
    return kind(**{name: _parsed(hints[name], value, f"{where}: {name}") for name, value in content.items()})
