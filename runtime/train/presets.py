"""Presets: the settings that `engram train` knows by name."""

from dataclasses import replace
from difflib import get_close_matches

from hashing.base.errors import UsageError
from hashing.named_specs import DEFAULT_SPEC, NAMED_SPECS
from hashing.vocab import CanonicalVocab
from runtime.config import Precision, Recipe, RunConfig
from runtime.plan.published import PUBLISHED
from runtime.settings import MemorySettings, ModelSettings, Settings

DEFAULT_PRESET = "tiny"

# Trains in minutes on two cores. It is shallow: memory earns more per second there than depth does, Muon more than AdamW, and
# rows more without momentum (docs/log.md).
TINY = Settings(
    "tiny",
    ModelSettings(hidden=128, blocks=2, heads=2, ffn=384, tied=False, rope_base=10_000.0),
    MemorySettings.named(NAMED_SPECS[DEFAULT_SPEC]),
    Recipe(
        steps=2600,
        batch=16,
        length=128,
        learning_rate=4e-3,
        optimizer="muon",
        row_rule="rowwise_adam",
        row_momentum=0.0,
    ),
)

# Trains in seconds, for trying things out.
NANO = Settings(
    "nano",
    replace(TINY.model, hidden=64, ffn=128),
    replace(MemorySettings.named(NAMED_SPECS[DEFAULT_SPEC]), layers=(1,), rows_per_head=2_000, head_dim=8),
    replace(TINY.recipe, steps=60, batch=4, length=64, learning_rate=3e-3, evaluations=2),
)

# The paper's architecture at the size of tiny: a mixture of experts, and four residual streams with hyper-connections.
TINY_MOE = replace(TINY, preset="tiny-moe", model=replace(TINY.model, experts=16, expert_ffn=128, qk_norm=True))
TINY_STREAMS = replace(TINY, preset="tiny-streams", model=replace(TINY.model, streams=4, qk_norm=True))

PRESETS = {settings.preset: settings for settings in (NANO, TINY, TINY_MOE, TINY_STREAMS)}


def preset_settings(name: str) -> Settings:
    """Raises UsageError for a name that no preset has, and for a model that is too large to be trained here."""
    if name in PUBLISHED:
        raise UsageError(f'"{name}" is a preset to plan, not to train', hint=f"engram plan --preset {name}")
    check_name(name, "training preset", list(PRESETS))
    return PRESETS[name]


def check_name(name: str, kind: str, names: list[str]) -> None:
    """Raises UsageError, with the nearest right one, for a name that is not among those of its kind."""
    if name not in names:
        near = get_close_matches(name, names, 1)
        raise UsageError(
            f'no {kind} is called "{name}"', hint=f"did you mean {near[0]}?" if near else f"the names are {', '.join(names)}"
        )


def preset(
    name: str, vocab: CanonicalVocab, precision: Precision, steps: int | None = None, seed: int | None = None
) -> RunConfig:
    """A named configuration over a vocabulary, with another number of steps or another seed where they are given."""
    settings = preset_settings(name)
    recipe = settings.recipe if steps is None else replace(settings.recipe, steps=steps)
    recipe = recipe if seed is None else replace(recipe, seed=seed)
    return replace(settings, recipe=recipe).resolve(vocab, precision)
