"""The addressing rule in torch, for token ids that are already on an accelerator.

The same rule as `hashing/reference.py` in whole-tensor operations on any device; on a CPU `hashing.hasher` is the faster one.
"""

import torch
from torch import Tensor

from hashing.spec import HashSpec


class TorchHasher:
    """Rows of canonical ids in one layer's table."""

    def __init__(self, spec: HashSpec, layer: int, device: torch.device | str = "cpu") -> None:
        self.spec = spec
        numbers = (spec.multipliers[spec.layer_index(layer)], spec.moduli(layer), spec.offsets(layer))
        self.multipliers, self.moduli, self.offsets = (torch.tensor(n, dtype=torch.int64, device=device) for n in numbers)

    def history(self, batch: int) -> Tensor:
        """(batch, N-1) What precedes a sequence: pads."""
        return torch.full((batch, self.spec.max_order - 1), self.spec.pad_id, device=self.moduli.device)

    def rows(self, ids: Tensor, history: Tensor | None = None, starts: Tensor | None = None) -> Tensor:
        """(B, T, columns) int64 rows for canonical ids (B, T) within the vocabulary; ids below 0 are dead positions.

        `history` (B, N-1) is what `advance` gave for the piece before; `starts` (B, T) marks positions where a segment begins.
        """
        extended, blocks = self._extend(ids, history, starts)
        lookback, length = self.spec.max_order - 1, ids.shape[1]
        mix = extended[:, lookback:] * self.multipliers[0]
        blocked = torch.zeros_like(ids, dtype=torch.bool)
        mixes = []
        for distance in range(1, lookback + 1):
            first = lookback - distance
            blocked = blocked | blocks[:, first + 1 : first + 1 + length]
            slot = extended[:, first : first + length].masked_fill(blocked, self.spec.pad_id)
            mix = mix ^ (slot * self.multipliers[distance])
            mixes.append(mix)
        per_column = torch.stack(mixes, dim=-1).repeat_interleave(self.spec.heads, dim=-1)  # (B, T, columns)
        return per_column % self.moduli + self.offsets

    def advance(self, ids: Tensor, history: Tensor | None = None, starts: Tensor | None = None) -> Tensor:
        """(B, N-1) The history that the piece after `ids` (B, T) needs."""
        extended, blocks = self._extend(ids, history, starts)
        lookback = self.spec.max_order - 1
        # Blocked once, blocked for all farther distances.
        blocked = blocks[:, -lookback:].flip(1).cumsum(1).flip(1) > 0
        return extended[:, extended.shape[1] - lookback :].masked_fill(blocked, self.spec.pad_id)

    def _extend(self, ids: Tensor, history: Tensor | None, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Ids (B, N-1+T), the history in front and pads at dead positions; blocks (B, N-1+T+1): nothing before here is read."""
        before = self.history(len(ids)) if history is None else history
        lookback = before.shape[1]
        blocks = torch.zeros(len(ids), lookback + ids.shape[1] + 1, dtype=torch.bool, device=ids.device)
        dead = ids < 0
        blocks[:, lookback:-1] = dead if starts is None else dead | starts
        blocks[:, lookback + 1 :] |= dead
        if self.spec.boundary_id is not None:
            blocks[:, lookback + 1 :] |= ids == self.spec.boundary_id
        return torch.cat([before, ids.to(torch.int64).masked_fill(dead, self.spec.pad_id)], dim=1), blocks
