"""Named configurations: the published ones, and the small one of the default run."""

from dataclasses import dataclass

import numpy as np

from hashing.errors import UsageError
from hashing.spec import HashSpec, Seeding, assign_primes, seeded_multipliers
from hashing.vocab import CanonicalVocab


@dataclass(frozen=True, slots=True)
class Preset:
    layers: tuple[int, ...]  # block numbers, from 0
    max_order: int
    heads: int  # per order
    base_rows: int  # per head; the primes are the next ones
    head_dim: int
    pad_token_id: int
    seeding: Seeding = "numpy"
    seed: int = 0
    boundary_token_id: int | None = None
    rows_multiple: int = 1

    def spec(self, vocab: CanonicalVocab) -> HashSpec:
        """Raises EngramError when the vocabulary lacks the preset's pad token."""
        tokens = [self.pad_token_id] if self.boundary_token_id is None else [self.pad_token_id, self.boundary_token_id]
        pad, *boundary = (int(i) for i in vocab.canonical(np.array(tokens)))
        primes = assign_primes(len(self.layers), self.max_order - 1, self.heads, self.base_rows)
        return HashSpec(
            layers=self.layers,
            primes=primes,
            multipliers=seeded_multipliers(self.seeding, self.seed, self.layers, self.max_order, vocab.size),
            pad_id=pad,
            canonical_size=vocab.size,
            vocab_fingerprint=vocab.fingerprint,
            boundary_id=boundary[0] if boundary else None,
            rows_multiple=self.rows_multiple,
            seeding=self.seeding,
            seed=self.seed,
        )


PRESETS = {
    "tiny": Preset(layers=(1, 3), max_order=3, heads=4, base_rows=50_000, head_dim=32, pad_token_id=0),
    "engram-demo": Preset(layers=(1, 15), max_order=3, heads=8, base_rows=646_400, head_dim=64, pad_token_id=2),
    # The paper counts blocks from 1 and trains at 2 and 15.
    "engram-27b": Preset(layers=(1, 14), max_order=3, heads=8, base_rows=2_262_400, head_dim=80, pad_token_id=2),
    "engram-40b": Preset(layers=(1, 14), max_order=3, heads=8, base_rows=7_239_680, head_dim=80, pad_token_id=2),
}


def preset(name: str) -> Preset:
    if name not in PRESETS:
        raise UsageError(f'no spec is called "{name}"', hint=f"the names are {', '.join(PRESETS)}")
    return PRESETS[name]
