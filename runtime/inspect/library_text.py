"""A text as the memory of a `transformers` model sees it: gates, and the loss with the memory and without.

The text follows an end-of-text token and is read in one piece, as the library reads it.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hashing.base.errors import UsageError
from runtime.ablation import suppressed
from runtime.huggingface import ends_of, varied, watching
from runtime.inspect.gates import watching_gates
from runtime.inspect.text import TextView

MOST_TOKENS = 4096  # whose logits are all in memory


@torch.inference_mode()
def view_library_text(model: Any, tokenizer: Tokenizer, text: str, turn: AbstractContextManager[Any] | None = None) -> TextView:
    """`model` is from `huggingface.load`; each of its passes is within `turn`, where others work with it.

    Raises UsageError for a text without tokens or with more than MOST_TOKENS.
    """
    turn = turn or nullcontext()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if not 0 < len(ids) <= MOST_TOKENS:
        raise UsageError(f"the text has {len(ids):,} tokens, expected 1 to {MOST_TOKENS:,}", hint="name a part of it")
    inputs = torch.tensor([[ends_of(model)[0], *ids]], device=model.device)
    with turn, watching_gates(model, watching) as gates:
        own = _losses(model(inputs, use_cache=False).logits, inputs)
    with turn, varied(model, suppressed):
        without = _losses(model(inputs, use_cache=False).logits, inputs)
    return TextView(
        tokens=tuple(tokenizer.decode([token], skip_special_tokens=False) for token in ids),
        token_ids=tuple(ids),
        loss_nats=(None, *own[1:]),
        suppressed_nats=(None, *without[1:]),
        gates={layer: tuple(map(tuple, gate[0, 1:].float().cpu().tolist())) for layer, gate in gates.items()},
        window_tokens=inputs.shape[1],
    )


def _losses(logits: Tensor, inputs: Tensor) -> list[float]:
    """Nats of every token (1, T) but the first, after logits (1, T, vocabulary)."""
    likelihoods = logits[0, :-1].float().log_softmax(-1)
    losses: list[float] = (-likelihoods.gather(-1, inputs[0, 1:, None])[:, 0]).tolist()
    return losses
