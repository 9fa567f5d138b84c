"""RunConfig: everything a run's model is and how it is trained. Only this module reads and writes `config.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from hashing.base.atomic import write_text
from hashing.base.errors import EngramError, UsageError
from hashing.base.json_object import read_json
from hashing.spec import HashSpec
from runtime.model.config import ModelConfig
from runtime.setting import Setting, check
from runtime.typed_value import typed

Precision = Literal["float32", "bfloat16"]
Optimizer = Literal["adamw", "muon"]
RowRule = Literal["adam", "rowwise_adam", "sinkhorn"]
Rows = Literal["trained", "frozen", "equal"]
RowPlace = Literal["memory", "disk"]
FORMAT = 2
MAX_BYTES = 16 << 20
SHARE_ERROR = 1e-9  # of a sum of two shares, by rounding


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a run is trained: for a number of steps, or for as many as fit into a budget of minutes."""

    steps: Annotated[int | None, Setting("optimiser steps; none: as many as the minutes allow", least=1)]
    batch: Annotated[int, Setting("sequences of a batch", least=1, most=1 << 16)]
    length: Annotated[int, Setting("tokens of a sequence", least=1, most=1 << 20)]
    learning_rate: Annotated[float, Setting("of the backbone, once it is warm", above=0)]
    row_rate_factor: Annotated[float, Setting("times as fast as the backbone, rows learn", least=0)] = 5.0
    weight_decay: Annotated[float, Setting("of the backbone's matrices; rows have none", least=0)] = 0.1
    warmup_share: Annotated[float, Setting("share of the training in which the rate rises", least=0, most=1)] = 0.04
    row_std: Annotated[float, Setting("standard deviation of new rows", least=0)] = 0.02
    evaluations: Annotated[int, Setting("validations, at even distances; a checkpoint goes with each", least=1)] = 5
    seed: Annotated[int, Setting("of weights, rows and the order of batches", least=0)] = 0
    minutes: Annotated[float | None, Setting("of training, in place of steps", above=0)] = None
    until_loss: Annotated[float | None, Setting("nats per token; a validation at or below it ends training", above=0)] = None
    balance_rate: Annotated[float, Setting("by which a router's bias moves after each step", least=0)] = 1e-3
    sample_prompt: Annotated[str, Setting("continued at each validation; empty: the beginning of a document")] = ""
    sample_tokens: Annotated[int, Setting("tokens of that continuation; 0: none", least=0, most=4096)] = 48
    optimizer: Annotated[Optimizer, Setting("of the backbone's maps: adamw or muon; all else is on adamw")] = "adamw"
    row_rule: Annotated[RowRule, Setting("of the rows: adam, rowwise_adam or sinkhorn (V4.1)")] = "adam"
    row_momentum: Annotated[float | None, Setting("of the rows' gradients; none: the rule's own", least=0, most=0.999)] = None
    decay_share: Annotated[
        float | None, Setting("share of the training in which the rate falls; none: all after it rose", least=0, most=1)
    ] = None
    accumulate: Annotated[int, Setting("parts that a batch is computed in, to fit in memory", least=1, most=1 << 16)] = 1
    checkpoint_steps: Annotated[int | None, Setting("steps between checkpoints; none: only at validations", least=1)] = None
    kept: Annotated[int, Setting("newest checkpoints that are kept, beside the best", least=1, most=1000)] = 1
    rows: Annotated[Rows, Setting("trained; frozen as they are drawn; or equal: frozen, all rows of a head the same")] = (
        "trained"
    )
    row_place: Annotated[RowPlace, Setting("of rows in training: memory; or disk, for larger tables")] = "memory"
    compile: Annotated[bool, Setting("whether torch compiles the model, which takes a minute at first")] = False
    float8_projection: Annotated[bool, Setting("whether the memory's projection is computed in FP8")] = False

    def __post_init__(self) -> None:
        check(self, "recipe")
        self._check_shares()
        if self.batch % self.accumulate:
            raise UsageError(
                f"recipe.batch is {self.batch}, which does not split into {self.accumulate} equal parts",
                hint=f"set recipe.accumulate to a divisor of {self.batch}",
            )
        if self.row_place == "disk" and self.rows != "trained":
            raise UsageError(
                f"recipe.row_place is disk, but rows are {self.rows}", hint="rows that stay as they are need no disk"
            )
        if (self.steps is None) == (self.minutes is None):
            found = "neither" if self.steps is None else f"{self.steps} and {self.minutes:g}"
            raise UsageError(
                f"recipe.steps and recipe.minutes say how long to train: expected one of the two, found {found}",
                hint='set the other to "none"' if self.steps else "set one of them",
            )

    def _check_shares(self) -> None:
        decay = self.decay_share or 0.0
        if self.warmup_share + decay > 1 + SHARE_ERROR:
            raise UsageError(
                f"recipe.warmup_share {self.warmup_share:g} and recipe.decay_share {decay:g} are more than the whole training",
                hint=f"set recipe.decay_share to at most {1 - self.warmup_share:g}",
            )


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A run without memory has neither a spec nor a MemoryConfig in its model."""

    preset: str  # the name it began from
    spec: HashSpec | None
    model: ModelConfig
    recipe: Recipe
    precision: Precision  # of the products while training

    def __post_init__(self) -> None:
        memory = self.model.memory
        if (self.spec is None) != (memory is None):
            there, lacking = ("a hash spec", "the model has no memory") if self.spec else ("memory", "there is no hash spec")
            raise EngramError(f"the model does not fit its hash spec: there is {there}, but {lacking}")
        if self.spec is None or memory is None:
            return
        for name, found, expected in (
            ("memory layers", memory.layers, self.spec.layers),
            ("dilation", memory.dilation, self.spec.max_order),
            ("columns left over by the memory's width", memory.width % self.spec.columns, 0),
        ):
            if found != expected:
                raise EngramError(f"the model does not fit its hash spec: {name} {found}, expected {expected}")

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks that have a memory, and a table; none in a run without memory."""
        return self.spec.layers if self.spec else ()

    @property
    def head_dim(self) -> int:
        """Numbers of a row."""
        assert self.spec is not None, "a run without memory has no rows"
        assert self.model.memory is not None
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
        try:
            config: RunConfig = typed(cls, content, str(path))
        except UsageError as e:  # a recipe that somebody wrote is a wrong call; in a file of ours it is wrong data
            raise EngramError(f"{path}: {e}") from e
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
