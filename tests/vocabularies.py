"""Vocabularies at toy size."""

import numpy as np

from hashing.rule import IDENTITY
from hashing.vocab import CanonicalVocab


def raw_vocab(size: int) -> CanonicalVocab:
    """As many tokens as that, each its own canonical id."""
    names = tuple(f"<{i}>" for i in range(size))
    return CanonicalVocab(names, names, np.arange(size, dtype=np.int32), names, IDENTITY.name)
