"""What `engram train` trains: a memory, a backbone and a recipe by one name."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from hashing.base.errors import EngramError, UsageError
from hashing.named_specs import NAMED_SPECS, NamedSpec
from runtime.model.memory import Gate

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a run is trained; saved with it."""

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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Recipe":
        if unknown := sorted(set(content) - {f.name for f in fields(cls)}):
            raise EngramError(f"the training recipe has unknown keys: {', '.join(unknown)}")
        return cls(**content)


@dataclass(frozen=True, slots=True)
class Preset:
    memory: NamedSpec
    hidden: int
    blocks: int
    heads: int
    ffn: int
    recipe: Recipe
    tied: bool = False
    gate: Gate = "signed_sqrt"
    conv: bool = True


TINY = NAMED_SPECS["tiny"]
PRESETS = {
    # Seconds, for trying things out.
    "nano": Preset(
        replace(TINY, layers=(1,), base_rows=2_000, head_dim=8), 64, 2, 2, 128, Recipe(60, 4, 64, 3e-3, evaluations=2)
    ),
    # Minutes on two cores. Shallow, because memory earns more per second there than depth does (docs/log.md).
    "tiny": Preset(TINY, 128, 2, 2, 384, Recipe(2600, 16, 128, 4e-3)),
}


def preset(name: str) -> Preset:
    if name not in PRESETS:
        raise UsageError(f'no training preset is called "{name}"', hint=f"the names are {', '.join(PRESETS)}")
    return PRESETS[name]
