"""Readings: what a model does in windows of the training side around given positions.

A window has WINDOW tokens, or all that there are in a shorter side; AFTER of them follow the position where the side goes on so
far. Its n-grams reach back beyond its first token, as they do in the side. What attention and the convolution would see before
the window is missing: the same for all positions, but for those at the ends of the side. The part that is shown begins BEFORE
tokens before the position.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from runtime.device import autocast
from runtime.inspect.gates import watching_gates
from runtime.inspect.threads import few_threads
from runtime.lookup import Lookup
from runtime.trained_run import TrainedRun
from runtime.windows import TOKENS_AT_ONCE

WINDOW, BEFORE, AFTER = 64, 16, 8


@dataclass(frozen=True, slots=True)
class Readings:
    """Of U positions, ascending, and S shown tokens of each."""

    positions: NDArray[np.int64]  # (U,)
    token_ids: NDArray[np.int64]  # (U, S)
    places: NDArray[np.int64]  # (U,) which of the shown tokens stands at the position
    gates: dict[int, NDArray[np.float32]]  # layer → (U, S) the mean over the streams
    effects: NDArray[np.float32]  # (U, S) the loss without memory less the loss with it, nats; NaN where there is none

    def at(self, layer: int, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """A layer's gates at some of the positions themselves."""
        gates: NDArray[np.float32] = self.gates[layer][numbers, self.places[numbers]]
        return gates


@dataclass(frozen=True, slots=True)
class Window:
    """Some windows of one length that a model is given together."""

    token_ids: NDArray[np.int64]  # (B, W)
    before: NDArray[np.int64]  # (B, N - 1) the token ids before, -1 where the side has not begun
    shown: NDArray[np.int64]  # (B, S) which of the W are shown


def read(trained: TrainedRun, ids: NDArray[np.int32], positions: NDArray[np.int64], effects: bool = True) -> Readings:
    """What the model does around positions (U,), ascending, of a side's token ids.

    Without `effects` these are NaN, in less time. Products are in the precision of the run's validations.
    The memory's vectors come from disk, some windows at a time.
    """
    lookup = trained.lookup("mapped")
    assert lookup is not None, "a run without memory reads no rows"
    starts, length = _starts(ids, positions)
    shown = _shown(positions - starts, length)
    nothing = np.empty((0, shown.shape[1]), np.float32)  # for a run of no windows
    with few_threads(trained.model):
        found = [
            _read(trained, lookup, window, effects) for window in _windows(ids, positions, lookup.addressing.spec.max_order - 1)
        ]
    return Readings(
        positions,
        token_ids=ids[starts[:, None] + shown].astype(np.int64),
        places=positions - starts - shown[:, 0],
        gates={layer: np.concatenate([nothing, *(gates[layer] for gates, _ in found)]) for layer in trained.config.layers},
        effects=np.concatenate([nothing, *(effects for _, effects in found)]),
    )


def _starts(ids: NDArray[np.int32], positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Where the window of each position begins, and the length of a window."""
    length = min(WINDOW, len(ids))
    return np.clip(positions - (length - 1 - AFTER), 0, len(ids) - length), length


def _shown(places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """(U, S) Which tokens of their windows are shown, where the positions are the tokens `places` (U,) of them."""
    count = min(BEFORE + 1 + AFTER, length)
    first: NDArray[np.int64] = np.clip(places - BEFORE, 0, length - count)[:, None]
    return first + np.arange(count)


def _windows(ids: NDArray[np.int32], positions: NDArray[np.int64], lookback: int) -> Iterator[Window]:
    starts, length = _starts(ids, positions)
    shown = _shown(positions - starts, length)
    at_once = max(1, TOKENS_AT_ONCE // length)
    for first in range(0, len(positions), at_once):
        begins = starts[first : first + at_once, None]
        before = begins - np.arange(lookback, 0, -1)
        known = np.where(before < 0, -1, ids[np.maximum(before, 0)])
        yield Window(ids[begins + np.arange(length)].astype(np.int64), known, shown[first : first + at_once])


@torch.no_grad()
def _read(
    trained: TrainedRun, lookup: Lookup, window: Window, effects: bool
) -> tuple[dict[int, NDArray[np.float32]], NDArray[np.float32]]:
    """Gates (B, S) by layer, and effects (B, S)."""
    model, addressing = trained.model, lookup.addressing
    history = addressing.hasher.advance(addressing.vocab.canonical(window.before))
    vectors, _ = lookup.following(window.token_ids, history)
    ids, shown = torch.from_numpy(window.token_ids).to(model.device), torch.from_numpy(window.shown).to(model.device)
    with autocast(model.device, trained.config.precision), watching_gates(model) as gates:
        hidden = model(ids, vectors)
        found = {layer: _taken(gate.float().mean(-1), shown) for layer, gate in gates.items()}
        if not effects:
            return found, np.full(window.shown.shape, np.nan, np.float32)
        plain, suppressed = (_losses(trained, ids, shown, each) for each in (hidden, model(ids, None)))
    return found, suppressed - plain


def _taken(values: Tensor, shown: Tensor) -> NDArray[np.float32]:
    return values.gather(1, shown).cpu().numpy()


def _losses(trained: TrainedRun, ids: Tensor, shown: Tensor, hidden: Tensor) -> NDArray[np.float32]:
    """(B, S) The loss of each shown token in nats; NaN for the first token of a window, which nothing predicts."""
    before = (shown - 1).clamp_min(0)
    states = hidden.gather(1, before.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))  # (B, S, D)
    logits = trained.model.head(states).float()
    losses = functional.cross_entropy(logits.flatten(0, 1), ids.gather(1, shown).flatten(), reduction="none")
    return losses.view(shown.shape).masked_fill(shown == 0, torch.nan).cpu().numpy()
