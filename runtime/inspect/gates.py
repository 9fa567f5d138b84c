"""The gates of a model's memory layers, as a forward pass leaves them."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor

from runtime.model import points
from runtime.model.points import Watch

GATE = re.compile(r"blocks\.(\d+)\.memory\.gate")

Gates = dict[int, Tensor]
"""Layer → how far the gate opened (B, T, M), from 0 to 1, for each sequence, position and stream."""


@contextmanager
def watching_gates(
    model: Any, watching: Callable[[Any, Watch], AbstractContextManager[None]] = points.watching
) -> Iterator[Gates]:
    """Within the block, the gates of each memory layer in the last forward pass; changes no number of it.

    `watching` calls a watch at the model's named points.
    """
    gates: Gates = {}

    def watch(name: str, value: Tensor) -> None:
        if point := GATE.fullmatch(name):
            gates[int(point[1])] = value.detach().squeeze(-1)

    with watching(model, watch):
        yield gates
