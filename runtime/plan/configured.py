"""Shapes of the models that are trained here, from a run's configuration or from settings."""

from dataclasses import asdict

from hashing.spec import NO_VOCAB, HashSpec
from runtime.config import RunConfig
from runtime.model.config import MemoryConfig, ModelConfig
from runtime.plan.shape import NO_MEMORY, Backbone, ExpertsShape, GroupedAttention, MemoryShape, ModelShape
from runtime.settings import Settings


def shape_of_config(config: RunConfig, name: str) -> ModelShape:
    return _shape(name, config.model, config.spec, config.recipe.length)


def shape_of_settings(settings: Settings, vocab_size: int, name: str) -> ModelShape:
    """With a vocabulary of so many tokens, whichever they are. Raises UsageError for a memory beyond the model's blocks."""
    memory, spec = settings.memory, None
    if memory:
        settings.check_layers(memory.layers, "memory.layers")
        spec = memory.addressing.addressed(vocab_size, 0, None, NO_VOCAB)  # the number of rows does not depend on ids
    module = memory.config(spec) if memory and spec else None
    model = ModelConfig(vocab_size=vocab_size, memory=module, **asdict(settings.model))
    return _shape(name, model, spec, settings.recipe.length)


def _shape(name: str, model: ModelConfig, spec: HashSpec | None, context: int) -> ModelShape:
    memory = _memory(model.memory, spec) if model.memory and spec else NO_MEMORY
    backbone = Backbone(
        vocab_size=model.vocab_size,
        tied=model.tied,
        blocks=model.blocks,
        attention=GroupedAttention(model.hidden, model.heads, model.key_heads, model.qk_norm),
        ffn=model.ffn,
        experts=ExpertsShape(model.experts, model.experts_per_token, model.shared_experts, model.expert_ffn)
        if model.experts
        else None,
        dense_blocks=model.dense_blocks,
        stream_form=model.stream_form,
    )
    return ModelShape(name, model.hidden, model.streams, backbone, memory, "float32", context)


def _memory(module: MemoryConfig, spec: HashSpec) -> MemoryShape:
    rows = {layer: spec.rows(layer) for layer in spec.layers}
    return MemoryShape(rows, spec.columns, module.width // spec.columns, module.kernel if module.conv else None, module.bias)
