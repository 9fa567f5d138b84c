"""The logit lens: how early a model's prediction is there, with its memory and with the memory suppressed.

A block's output goes through the model's own final norm and output head, as if the blocks after it were not there; the gap to
what the model predicts in the end is KL(final ‖ block) = Σ p_final · (log p_final − log p_block), in nats, the mean over the
judged tokens. Each model is compared with its own end: the suppressed one with the suppressed model's prediction. The paper
(section 6.1) names neither norm nor direction; these are ours. Computed in float32.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.inspect.probes.block_states import block_states
from runtime.inspect.probes.bootstrap import Interval, mean_intervals
from runtime.inspect.threads import few_threads
from runtime.model.language_model import LOSS_LOGITS, LOSS_POSITIONS, LanguageModel
from runtime.trained_run import TrainedRun
from runtime.windows import CONTEXT, Side, Texts

EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class DepthView:
    """What is known of the prediction after the embedding, or after a block."""

    state: str
    nats: float  # KL to the end, with the memory
    ci95: Interval | None  # by documents; None for one document
    suppressed_nats: float
    suppressed_ci95: Interval | None
    difference_nats: float  # suppressed − with the memory
    difference_ci95: Interval | None


@dataclass(frozen=True, slots=True)
class LensView:
    tokens: int
    documents: int
    states: tuple[DepthView, ...]

    def to_json(self) -> dict[str, Any]:
        return {"direction": "KL(final || state), through the final norm and the output head", **asdict(self)}


def probe_lens(trained: TrainedRun, windows: Side | Texts, advance: Callable[[int], None] = lambda _: None) -> LensView:
    """`advance` hears of every block of windows."""
    lookup, model = trained.lookup("mapped"), trained.model
    assert lookup is not None, "commands refuse a run without memory"
    documents, pieces = [], []
    with few_threads(model):
        for block in windows:
            judged = block.documents != CONTEXT
            ids, chosen = (torch.from_numpy(part).to(model.device) for part in (block.inputs, judged))
            both = [
                divergences(model, [state[chosen] for state in block_states(model, ids, vectors)])
                for vectors in (lookup.vectors(block.inputs), None)
            ]
            documents.append(block.documents[judged])
            pieces.append(np.stack(both))
            advance(1)
    return _view(np.concatenate(documents), np.concatenate(pieces, -1).astype(np.float64))


@torch.no_grad()
def divergences(model: LanguageModel, states: list[Tensor]) -> NDArray[np.float32]:
    """(states, P) KL(last ‖ each) of states (P, D), of which the last is the model's end. A few positions at a time."""
    together = max(1, min(LOSS_POSITIONS, LOSS_LOGITS // model.config.vocab_size))
    pieces = []
    for piece in zip(*(torch.split(state, together) for state in states), strict=True):
        logprobs = [model.head(model.norm(state[None]))[0].log_softmax(-1) for state in piece]
        final = logprobs[-1]
        pieces.append(torch.stack([(final.exp() * (final - each)).sum(-1) for each in logprobs]))
    return torch.cat(pieces, 1).cpu().numpy()


def _view(documents: NDArray[np.int64], nats: NDArray[np.float64]) -> LensView:
    """`nats` (2, states, P) are those with the memory and those with it suppressed."""
    three = np.stack([*nats, nats[1] - nats[0]], 1)  # (states, 3, P)
    everything = np.zeros(len(documents), np.int64)
    intervals = mean_intervals(documents, three.reshape(-1, three.shape[-1]), everything, 1)
    states = []
    for number, (own, suppressed, difference) in enumerate(three.mean(-1).tolist()):
        name = f"block {number - 1}" if number else EMBEDDING
        of_own, of_suppressed, of_difference = (found[0] for found in intervals[3 * number : 3 * number + 3])
        states.append(DepthView(name, own, of_own, suppressed, of_suppressed, difference, of_difference))
    return LensView(len(documents), len(np.unique(documents)), tuple(states))
