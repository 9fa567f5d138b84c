"""What decoding in pieces carries from one piece to the next, block by block."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class BlockCache:
    """Keys and values of the positions so far, in buffers that double when they are full, and the convolution's history."""

    length: int = 0  # positions so far
    keys: Tensor | None = None  # (B, H, capacity, head_dim)
    values: Tensor | None = None
    convolved: Tensor | None = None  # (B, lookback, M, D) the memory's last normalised values; None stands for zeros

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values (B, H, past + T, head_dim) after those of T new positions were added."""
        past, new = self.length, keys.shape[2]
        self.length = past + new
        self.keys, self.values = _with_room(self.keys, keys, self.length), _with_room(self.values, values, self.length)
        self.keys.narrow(2, past, new).copy_(keys)
        self.values.narrow(2, past, new).copy_(values)
        return self.keys.narrow(2, 0, self.length), self.values.narrow(2, 0, self.length)


Cache = list[BlockCache]
"""One entry for each block of the model."""


def _with_room(held: Tensor | None, new: Tensor, length: int) -> Tensor:
    """`held`, or where it has fewer than `length` positions a buffer twice as long that begins with them."""
    if held is not None and held.shape[2] >= length:
        return held
    grown = new.new_empty(*new.shape[:2], 2 * length, new.shape[3])
    if held is not None:
        grown[:, :, : held.shape[2]] = held
    return grown
