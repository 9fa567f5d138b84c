"""Presets: the settings that `engram train` knows by name."""

from dataclasses import replace

from hashing.base.errors import UsageError
from hashing.named_specs import DEFAULT_SPEC, NAMED_SPECS
from hashing.vocab import CanonicalVocab
from runtime.config import Precision, Recipe, RunConfig
from runtime.settings import MemorySettings, ModelSettings, Settings

DEFAULT_PRESET = "tiny"

# Trains in minutes on two cores. It is shallow: memory earns more per second there than depth does (docs/log.md).
TINY = Settings(
    "tiny",
    ModelSettings(hidden=128, blocks=2, heads=2, ffn=384, tied=False, rope_base=10_000.0),
    MemorySettings.named(NAMED_SPECS[DEFAULT_SPEC]),
    Recipe(steps=2600, batch=16, length=128, learning_rate=4e-3),
)

# Trains in seconds, for trying things out.
NANO = Settings(
    "nano",
    replace(TINY.model, hidden=64, ffn=128),
    replace(MemorySettings.named(NAMED_SPECS[DEFAULT_SPEC]), layers=(1,), rows_per_head=2_000, head_dim=8),
    Recipe(steps=60, batch=4, length=64, learning_rate=3e-3, evaluations=2),
)

PRESETS = {settings.preset: settings for settings in (NANO, TINY)}


def preset_settings(name: str) -> Settings:
    """Raises UsageError for a name that no preset has."""
    if name not in PRESETS:
        raise UsageError(f'no training preset is called "{name}"', hint=f"the names are {', '.join(PRESETS)}")
    return PRESETS[name]


def preset(
    name: str, vocab: CanonicalVocab, precision: Precision, steps: int | None = None, seed: int | None = None
) -> RunConfig:
    """A named configuration over a vocabulary, with another number of steps or another seed where they are given."""
    settings = preset_settings(name)
    recipe = settings.recipe if steps is None else replace(settings.recipe, steps=steps)
    recipe = recipe if seed is None else replace(recipe, seed=seed)
    return replace(settings, recipe=recipe).resolve(vocab, precision)
