"""What is different between two canonical vocabularies, so that a table addressed with one would be misread with the other."""

from dataclasses import dataclass

import numpy as np

from hashing.vocab import CanonicalVocab


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A token that both vocabularies have and that reads differently in the second."""

    token_id: int
    key: str  # in the first vocabulary
    other_key: str  # in the second


@dataclass(frozen=True, slots=True)
class VocabDifference:
    """Pairs are of the first vocabulary and of the second."""

    tokens: tuple[int, int]  # how many token ids there are
    canonical: tuple[int, int]  # how many canonical ids there are
    fingerprints: tuple[str, str]
    other_tokens: tuple[int, ...]  # ids that stand for another token, or are in one vocabulary only
    changed_keys: tuple[KeyChange, ...]  # ids of the same token that read differently
    first_moved: int | None  # the first token id with another canonical id; from there on rows differ


def difference(first: CanonicalVocab, second: CanonicalVocab) -> VocabDifference:
    common = min(len(first.tokens), len(second.tokens))
    longest = max(len(first.tokens), len(second.tokens))
    other = [i for i in range(common) if first.tokens[i] != second.tokens[i]]
    keys = ((i, first.keys[first.mapping[i]], second.keys[second.mapping[i]]) for i in range(common))
    moved = np.flatnonzero(first.mapping[:common] != second.mapping[:common])
    return VocabDifference(
        tokens=(len(first.tokens), len(second.tokens)),
        canonical=(first.size, second.size),
        fingerprints=(first.fingerprint, second.fingerprint),
        other_tokens=(*other, *range(common, longest)),
        changed_keys=tuple(KeyChange(i, a, b) for i, a, b in keys if a != b and first.tokens[i] == second.tokens[i]),
        first_moved=int(moved[0]) if len(moved) else None,
    )
