"""Swap: one phrase with another phrase's memory at its last position, and what that changes in the prediction.

The model reads phrase A, but at A's last token the memory gets the vectors of the n-grams that end phrase B, in all its layers
or in some. Everything else is A's: the hidden state that the gate is computed from, the tokens that attention sees, the
memory's values before, which the convolution reaches back to. Both phrases stand at the beginning of a text: n-grams that would
reach beyond it read the pad. Computed in float32.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashing.base.errors import UsageError
from runtime.inspect.gates import watching_gates
from runtime.inspect.threads import few_threads
from runtime.lookup import Lookup
from runtime.trained_run import TrainedRun
from runtime.vectors import Vectors

TOP = 10  # tokens of each prediction


@dataclass(frozen=True, slots=True)
class Change:
    """A token that is among the likeliest before or after."""

    token: str
    token_id: int
    probability_before: float
    probability_after: float
    probability_other: float  # after phrase B itself


@dataclass(frozen=True, slots=True)
class GateChange:
    """Of a layer whose memory was swapped, and of those after it, per stream at the last position."""

    before: list[float]
    after: list[float]


@dataclass(frozen=True, slots=True)
class SwapView:
    tokens: list[str]  # of phrase A
    other_tokens: list[str]  # of phrase B
    layers: list[int]  # whose memory is swapped
    kl_nats: float  # KL(before ‖ after)
    changes: tuple[Change, ...]  # the likeliest before or after, those that change most first
    gates: dict[int, GateChange]  # by layer, of all that have a memory

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def probe_swap(trained: TrainedRun, phrase: Sequence[int], other: Sequence[int], layers: Sequence[int] = ()) -> SwapView:
    """Token ids of both phrases, and the layers to swap, all where none are named.

    Raises UsageError for a layer without memory and for a phrase without tokens.
    """
    assert trained.store is not None, "commands refuse a run without memory"
    spec, texts = trained.store.spec, trained.vocab.texts
    if unknown := sorted(set(layers) - set(spec.layers)):
        hint = f"this run has memory at {', '.join(map(str, spec.layers))}"
        raise UsageError(f"there is no memory at layer {unknown[0]}", hint=hint)
    if not phrase or not other:
        raise UsageError("a phrase is empty; it needs at least one token", hint="name two phrases")
    swapped, lookup = sorted(set(layers) or spec.layers), trained.lookup("mapped")
    assert lookup is not None
    own, others = _vectors(lookup, phrase), _vectors(lookup, other)
    before, gates_before = _prediction(trained, phrase, own)
    after, gates_after = _prediction(trained, phrase, _last_replaced(own, others, swapped))
    itself, _ = _prediction(trained, other, others)
    likeliest = sorted(
        {*before.topk(min(TOP, len(before))).indices.tolist(), *after.topk(min(TOP, len(after))).indices.tolist()}
    )
    changes = [Change(texts[i], i, *(float(logprobs[i].exp()) for logprobs in (before, after, itself))) for i in likeliest]
    changes.sort(key=lambda change: -abs(change.probability_after - change.probability_before))
    return SwapView(
        [texts[i] for i in phrase],
        [texts[i] for i in other],
        swapped,
        float((before.exp() * (before - after)).sum()),
        tuple(changes),
        {layer: GateChange(gates_before[layer], gates_after[layer]) for layer in spec.layers},
    )


def _vectors(lookup: Lookup, phrase: Sequence[int]) -> Vectors:
    return lookup.vectors(np.array([phrase], np.int64))


def _last_replaced(own: Vectors, others: Vectors, layers: Sequence[int]) -> Vectors:
    def vectors(layer: int) -> Tensor | None:
        found, other = own(layer), others(layer)
        if found is None or other is None or layer not in layers:
            return found
        replaced = found.clone()
        replaced[:, -1] = other[:, -1]
        return replaced

    return vectors


@torch.no_grad()
def _prediction(trained: TrainedRun, phrase: Sequence[int], vectors: Vectors) -> tuple[Tensor, dict[int, list[float]]]:
    """(vocabulary,) Log-probabilities after a phrase, and each layer's gates at its last token."""
    ids = torch.tensor([phrase], device=trained.model.device)
    with few_threads(trained.model), watching_gates(trained.model) as gates:
        logprobs = trained.model.logits(ids, vectors)[0, -1].log_softmax(-1).cpu()
    return logprobs, {layer: gate[0, -1].tolist() for layer, gate in gates.items()}
