"""The gates of a model's memory layers, as a forward pass leaves them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from runtime.model.language_model import LanguageModel
from runtime.model.points import watching

GATE = re.compile(r"blocks\.(\d+)\.memory\.gate")

Gates = dict[int, Tensor]
"""Layer → how far the gate opened (B, T, M), from 0 to 1, for each sequence, position and stream."""


@contextmanager
def watching_gates(model: LanguageModel) -> Iterator[Gates]:
    """Within the block, the gates of each memory layer in the last forward pass; changes no number of it."""
    gates: Gates = {}

    def watch(name: str, value: Tensor) -> None:
        if point := GATE.fullmatch(name):
            gates[int(point[1])] = value.detach().squeeze(-1)

    with watching(model, watch):
        yield gates
