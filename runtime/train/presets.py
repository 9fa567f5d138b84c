"""Presets: the configurations that `engram train` knows by name, each a RunConfig for the vocabulary it is to be used with."""

from collections.abc import Callable
from dataclasses import replace

from hashing.base.errors import UsageError
from hashing.named_specs import NAMED_SPECS, NamedSpec
from hashing.vocab import CanonicalVocab
from runtime.config import Precision, Recipe, RunConfig
from runtime.model.config import MemoryConfig, ModelConfig

TINY = NAMED_SPECS["tiny"]


def preset(
    name: str, vocab: CanonicalVocab, precision: Precision, steps: int | None = None, seed: int | None = None
) -> RunConfig:
    """A named configuration over a vocabulary, with another number of steps or another seed where they are given."""
    if name not in PRESETS:
        raise UsageError(f'no training preset is called "{name}"', hint=f"the names are {', '.join(PRESETS)}")
    config = PRESETS[name](vocab, precision)
    changes = {key: value for key, value in (("steps", steps), ("seed", seed)) if value is not None}
    return replace(config, recipe=replace(config.recipe, **changes))


def _nano(vocab: CanonicalVocab, precision: Precision) -> RunConfig:
    """Trains in seconds, for trying things out."""
    addressing = replace(TINY, layers=(1,), base_rows=2_000, head_dim=8)
    recipe = Recipe(steps=60, batch=4, length=64, learning_rate=3e-3, evaluations=2)
    return RunConfig("nano", addressing.spec(vocab), _model(vocab, addressing, 64, 2, 2, 128), recipe, precision)


def _tiny(vocab: CanonicalVocab, precision: Precision) -> RunConfig:
    """Trains in minutes on two cores. It is shallow: memory earns more per second there than depth does (docs/log.md)."""
    recipe = Recipe(steps=2600, batch=16, length=128, learning_rate=4e-3)
    return RunConfig("tiny", TINY.spec(vocab), _model(vocab, TINY, 128, 2, 2, 384), recipe, precision)


def _model(vocab: CanonicalVocab, addressing: NamedSpec, hidden: int, blocks: int, heads: int, ffn: int) -> ModelConfig:
    columns = (addressing.max_order - 1) * addressing.heads
    memory = MemoryConfig(addressing.layers, columns * addressing.head_dim, addressing.max_order)
    return ModelConfig(len(vocab.tokens), hidden, blocks, heads, ffn, memory)


PRESETS: dict[str, Callable[[CanonicalVocab, Precision], RunConfig]] = {"nano": _nano, "tiny": _tiny}
