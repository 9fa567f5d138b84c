"""Named configurations: the published ones, and the small one of the default run.

A named spec applied to a vocabulary gives a spec. Its rows are the published model's own only over that model's vocabulary,
since the number of canonical ids decides the multipliers; `published_ids` says how many those are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hashing.base.errors import EngramError, UsageError
from hashing.rule import IDENTITY
from hashing.spec import NO_VOCAB, HashSpec, Seeding, assign_primes, seeded_multipliers
from hashing.vocab import CanonicalVocab

UNPUBLISHED_IDS = 8192


@dataclass(frozen=True, slots=True)
class NamedSpec:
    """What a published model fixes of its addresses and rows, whatever the vocabulary."""

    layers: tuple[int, ...]  # block numbers, from 0
    max_order: int
    heads: int  # per order
    base_rows: int  # per head; the primes are the next ones
    head_dim: int
    pad_token_id: int | None  # None: the vocabulary's own
    seeding: Seeding = "numpy"
    seed: int = 0
    boundary_token_id: int | None = None
    rows_multiple: int = 1
    raw_ids: bool = False  # whether it addresses by token ids, padded to `published_ids`, instead of canonical ids
    published_ids: int | None = None  # ids the published model's multipliers are drawn for
    encoding: str = "float32"  # how the published model stores its rows

    def spec(self, vocab: CanonicalVocab) -> HashSpec:
        """The spec over a vocabulary. Raises EngramError when that lacks the pad or boundary token, or is of another rule."""
        if self.raw_ids and vocab.rule != IDENTITY.name:
            raise EngramError(
                f"the spec addresses by raw token ids, but the vocabulary was made by the rule {vocab.rule}",
                hint="make one with engram build-vocab --rule identity",
            )
        # Token 0 pads a vocabulary of bare ids, which has no pad of its own.
        own_pad = (vocab.pad_token_id or 0) if self.pad_token_id is None else self.pad_token_id
        tokens = [own_pad] if self.boundary_token_id is None else [own_pad, self.boundary_token_id]
        pad, *boundary = (int(i) for i in vocab.canonical(np.array(tokens)))
        # A model's embedding has more rows than its tokenizer has tokens, and raw ids are counted by the former.
        size = max(vocab.size, self.published_ids or 0) if self.raw_ids else vocab.size
        return self.addressed(size, pad, boundary[0] if boundary else None, vocab.fingerprint)

    def bare_spec(self) -> HashSpec:
        """The spec over the published number of ids, with no vocabulary behind it: the pad token is its own canonical id."""
        size = self.published_ids or UNPUBLISHED_IDS
        return self.addressed(size, self.pad_token_id or 0, self.boundary_token_id, NO_VOCAB)

    def addressed(self, canonical_size: int, pad_id: int, boundary_id: int | None, fingerprint: str) -> HashSpec:
        return HashSpec(
            layers=self.layers,
            primes=assign_primes(len(self.layers), self.max_order - 1, self.heads, self.base_rows),
            multipliers=seeded_multipliers(self.seeding, self.seed, self.layers, self.max_order, canonical_size),
            pad_id=pad_id,
            canonical_size=canonical_size,
            vocab_fingerprint=fingerprint,
            boundary_id=boundary_id,
            rows_multiple=self.rows_multiple,
            seeding=self.seeding,
            seed=self.seed,
        )


DEFAULT_SPEC = "tiny"
DEEPSEEK_V3_IDS = 98_627
NAMED_SPECS = {
    "tiny": NamedSpec(layers=(0, 1), max_order=3, heads=4, base_rows=50_000, head_dim=32, pad_token_id=None),
    "engram-demo": NamedSpec(
        layers=(1, 15), max_order=3, heads=8, base_rows=646_400, head_dim=64, pad_token_id=2, published_ids=DEEPSEEK_V3_IDS
    ),
    # The paper counts blocks from 1 and trains at 2 and 15.
    "engram-27b": NamedSpec(
        layers=(1, 14), max_order=3, heads=8, base_rows=2_262_400, head_dim=80, pad_token_id=2, published_ids=DEEPSEEK_V3_IDS
    ),
    "engram-40b": NamedSpec(
        layers=(1, 14), max_order=3, heads=8, base_rows=7_239_680, head_dim=80, pad_token_id=2, published_ids=DEEPSEEK_V3_IDS
    ),
    "deepseek-v4.1": NamedSpec(
        layers=(1, 14),
        max_order=4,
        heads=8,
        base_rows=16_000_000,
        head_dim=256,
        pad_token_id=2,
        published_ids=99_092,
        encoding="e4m3-e8m0",
    ),
    # Its configuration counts blocks from 1 (ple_layer_ids [2]).
    "qwen3.8-ple": NamedSpec(
        layers=(1,),
        max_order=3,
        heads=8,
        base_rows=20_000_000,
        head_dim=160,
        pad_token_id=248_044,
        seeding="splitmix64",
        seed=1234,
        boundary_token_id=248_044,
        rows_multiple=128,
        raw_ids=True,
        published_ids=248_320,
        encoding="bfloat16",
    ),
}


def named_spec(name: str) -> NamedSpec:
    if name not in NAMED_SPECS:
        raise UsageError(
            f'no spec is called "{name}"', hint=f"the names are {', '.join(NAMED_SPECS)}; or name a spec's JSON file"
        )
    return NAMED_SPECS[name]


def is_spec_file(name: str) -> bool:
    """Whether `--spec` was given a file rather than a name that is known."""
    return name not in NAMED_SPECS and (name.endswith(".json") or Path(name).is_file())


def chosen_spec(name: str, vocab: CanonicalVocab) -> HashSpec:
    """A named spec over the vocabulary, or the spec in a JSON file of that name, which must be of this vocabulary."""
    if not is_spec_file(name):
        return named_spec(name).spec(vocab)
    spec = HashSpec.load(Path(name))
    if spec.vocab_fingerprint != vocab.fingerprint:
        raise EngramError(
            f"{name} addresses vocabulary {spec.vocab_fingerprint}, but the one given is {vocab.fingerprint}",
            hint="name the run that it was saved from, or save it again with engram hash --save-spec",
        )
    if spec.canonical_size < vocab.size or (spec.canonical_size > vocab.size and vocab.rule != IDENTITY.name):
        raise EngramError(f"{name} is over {spec.canonical_size} canonical ids, but the vocabulary has {vocab.size}")
    return spec
