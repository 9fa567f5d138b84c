"""The hidden states of a model between its blocks, as its end would read them."""

import torch
from torch import Tensor

from runtime.model.language_model import LanguageModel
from runtime.model.points import watching
from runtime.vectors import Vectors


@torch.no_grad()
def block_states(model: LanguageModel, token_ids: Tensor, vectors: Vectors | None) -> list[Tensor]:
    """(B, T, D) each: the embedding, then what each block puts out, in float32; `vectors` are as the model takes them.

    Several streams are collapsed as they are at the model's end.
    """
    seen: dict[str, Tensor] = {}
    with watching(model, seen.__setitem__):
        model(token_ids, vectors)
    states = [model.collapse(seen["blocks.0.in"], None)]
    for number in range(len(model.blocks)):
        states.append(model.collapse(seen[f"blocks.{number}.out"], seen.get(f"blocks.{number}.read")))
    return states
