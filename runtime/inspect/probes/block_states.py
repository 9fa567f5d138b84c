"""The hidden states of a model between its blocks."""

import torch
from torch import Tensor

from runtime.model.language_model import LanguageModel
from runtime.model.points import watching
from runtime.vectors import Vectors


@torch.no_grad()
def block_states(model: LanguageModel, token_ids: Tensor, vectors: Vectors | None) -> list[Tensor]:
    """(B, T, D) each: the embedding, then what each block puts out, in float32; `vectors` are as the model takes them."""
    states: dict[str, Tensor] = {}
    last = len(model.blocks) - 1
    wanted = {"blocks.0.in", *(f"blocks.{number}.out" for number in range(last + 1))}

    def watch(name: str, value: Tensor) -> None:
        if name in wanted:
            states[name] = value

    with watching(model, watch):
        model(token_ids, vectors)
    return list(states.values())
