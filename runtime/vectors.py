"""What passes between lookup, placements and the model: the rows of every layer, and the vectors that they stand for."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

LayerRows = Mapping[int, NDArray[np.signedinteger]]
"""Layer → row numbers (B, T, columns)."""

Vectors = Callable[[int], "Tensor | None"]
"""Gives the vectors (B, T, E) of a layer, waiting for them if need be; None leaves that layer's memory out."""
