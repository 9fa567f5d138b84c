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

    def reserve(self, new: int, like: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Both buffers, with room for `new` more positions of shape (B, H, head_dim); new ones are made as `like` is."""
        batch, heads, width = shape
        end = self.length + new
        if self.keys is None or self.values is None:
            self.keys, self.values = (like.new_empty(batch, heads, 2 * end, width) for _ in range(2))
        if self.keys.shape[2] < end:
            self.keys, self.values = (_doubled(buffer, end) for buffer in (self.keys, self.values))
        return self.keys, self.values

    def extend(self, keys: Tensor, values: Tensor) -> None:
        """Adds keys and values (B, H, T, head_dim) of new positions."""
        batch, heads, new, width = keys.shape
        for buffer, added in zip(self.reserve(new, keys, (batch, heads, width)), (keys, values), strict=True):
            buffer.narrow(2, self.length, new).copy_(added)
        self.length += new

    def attended(self) -> tuple[Tensor, Tensor]:
        """All keys and values (B, H, length, head_dim)."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys.narrow(2, 0, self.length), self.values.narrow(2, 0, self.length)


Cache = list[BlockCache]
"""One entry for each block of the model."""


def _doubled(buffer: Tensor, end: int) -> Tensor:
    """A buffer of twice `end` positions that begins with what `buffer` holds."""
    grown = buffer.new_empty(*buffer.shape[:2], 2 * end, buffer.shape[3])
    grown[:, :, : buffer.shape[2]] = buffer
    return grown
