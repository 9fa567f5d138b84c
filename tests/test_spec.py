"""A spec is valid or it does not exist: one test for each way its file can lie."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashing.base.errors import EngramError, UsageError
from hashing.named_specs import NAMED_SPECS, named_spec
from hashing.spec import HashSpec, assign_primes, is_prime, multiplier_bound, seeded_multipliers
from hashing.vocab import CanonicalVocab
from tests.addressing import specs


def content(**changes: Any) -> dict[str, Any]:
    """A valid spec as its file has it, then changed."""
    spec = HashSpec(
        layers=(1, 3),
        primes=assign_primes(2, 2, 2, 100),
        multipliers=seeded_multipliers("numpy", 0, (1, 3), 3, 50),
        pad_id=2,
        canonical_size=50,
        vocab_fingerprint="abc",
        boundary_id=4,
        seeding="numpy",
        seed=0,
    )
    return {**json.loads(json.dumps(spec.to_json())), **changes}


PRIMES = content()["primes"]
MULTIPLIERS = content()["multipliers"]
UNSEEDED = {"seeding": None, "seed": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "unknown keys: colour"),
        ({"layers": []}, r"layers are \[\], expected block numbers in ascending order"),
        ({"layers": [3, 1]}, r"layers are \[3, 1\], expected block numbers in ascending order"),
        ({"layers": [1, 1]}, r"layers are \[1, 1\], expected"),
        ({"layers": [-1, 3]}, r"layers are \[-1, 3\], expected"),
        ({"layers": [1]}, "1 layers, but primes for 2 and multipliers for 2"),
        ({"layers": "1"}, "layers holds '1', expected a list"),
        ({"primes": [[[100, 103], [107, 109]], PRIMES[1]]}, "modulus 100 is not a prime"),
        ({"primes": [PRIMES[0], PRIMES[0]]}, f"modulus {PRIMES[0][0][0]} is used twice"),
        ({"primes": [[[101, 103], [107]], PRIMES[1]]}, "one is missing or too many"),
        ({"primes": [PRIMES[0]]}, "2 layers, but primes for 1"),
        ({"primes": [[[], []], [[], []]]}, "one is missing or too many"),
        ({"primes": [[], []]}, "one is missing or too many"),
        ({"primes": [[[101.0, 103], [107, 109]], PRIMES[1]]}, "primes holds 101.0, expected an integer"),
        ({"primes": [[101, 103], [107, 109]]}, "primes holds 101, expected a list"),
        ({"primes": [[[p] for p in (101, 103, 107, 109, 113, 127)]], "layers": [1], "multipliers": [[1] * 7]}, "has 7 tokens"),
        ({"multipliers": [MULTIPLIERS[0][:2], MULTIPLIERS[1]]}, "layer 1 has 2 multipliers, expected 3"),
        ({"multipliers": [[2**62 + 1, 1, 1], MULTIPLIERS[1]], **UNSEEDED}, f"multiplier {2**62 + 1} would overflow 64 bits"),
        ({"multipliers": [[0, 1, 1], MULTIPLIERS[1]], **UNSEEDED}, "multiplier 0 is not an odd number above 0"),
        ({"multipliers": [[-5, 1, 1], MULTIPLIERS[1]], **UNSEEDED}, "multiplier -5 is not an odd number above 0"),
        ({"multipliers": [[1, 3, 5], MULTIPLIERS[1]]}, r"multipliers \(1, 3, 5\) do not follow from seed 0"),
        ({"seed": 1}, "do not follow from seed 1"),
        ({"seed": -1}, "the seed is -1, expected 0 or more"),
        ({"seed": None}, "one is given without the other"),
        ({"seeding": "lucky"}, "seeding is 'lucky', expected numpy or splitmix64"),
        ({"pad_id": 50}, "pad id 50 is outside the canonical vocabulary of 50"),
        ({"pad_id": -1}, "pad id -1 is outside"),
        ({"pad_id": True}, "pad_id holds True, expected an integer"),
        ({"boundary_id": 50}, "boundary id 50 is outside"),
        ({"canonical_size": 0}, "canonical_size is 0, expected at least 1"),
        ({"canonical_size": 2**62, **UNSEEDED}, "would overflow 64 bits"),
        ({"rows_multiple": 0}, "rows_multiple is 0, expected at least 1"),
        ({"vocab_fingerprint": 5}, "vocab_fingerprint is 5, expected a text"),
    ],
)
def test_a_lie_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EngramError, match=message):
        HashSpec.from_json(content(**changes))


@pytest.mark.parametrize("key", ["layers", "primes", "multipliers", "pad_id", "canonical_size", "vocab_fingerprint"])
def test_a_missing_key_is_named(key: str) -> None:
    short = content()
    del short[key]
    with pytest.raises(EngramError, match=f"lacks {key}"):
        HashSpec.from_json(short)


def test_more_rows_than_64_bits_number_are_refused() -> None:
    with pytest.raises(EngramError, match="more than 64 bits can number"):
        HashSpec.from_json(content(primes=assign_primes(2, 2, 2, 2**62)))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "it is not JSON"), ("[]", "holds a list, expected an object"), ('{"layers": [1]}', "lacks"), ("\xff", "not JSON")],
)
def test_a_broken_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(EngramError, match=message):
        HashSpec.load(path)
    with pytest.raises(EngramError, match="no such file"):
        HashSpec.load(tmp_path / "absent.json")


@given(specs())
def test_a_spec_round_trips_through_json(spec: HashSpec) -> None:
    again = HashSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.fingerprint == spec.fingerprint


def test_a_file_round_trips_and_has_the_same_bytes(tmp_path: Path) -> None:
    spec = HashSpec.from_json(content())
    spec.save(tmp_path / "a.json")
    HashSpec.load(tmp_path / "a.json").save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    "key", ["layers", "primes", "multipliers", "pad_id", "canonical_size", "vocab_fingerprint", "boundary_id"]
)
def test_the_fingerprint_covers_what_addresses_depend_on(key: str) -> None:
    other = {
        "layers": [1, 4],
        "primes": [PRIMES[1], PRIMES[0]],
        "multipliers": [MULTIPLIERS[1], MULTIPLIERS[0]],
        "pad_id": 3,
        "canonical_size": 51,
        "vocab_fingerprint": "abd",
        "boundary_id": None,
    }
    unseeded = content(**UNSEEDED)
    assert HashSpec.from_json(unseeded).fingerprint == HashSpec.from_json(content()).fingerprint
    assert HashSpec.from_json({**unseeded, key: other[key]}).fingerprint != HashSpec.from_json(unseeded).fingerprint


@given(st.integers(0, 20_000))
def test_is_prime_against_trial_division(n: int) -> None:
    assert is_prime(n) == (n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)))


@given(st.integers(1, 2**40), st.integers(0, 10_000))
def test_seeded_multipliers_are_odd_and_keep_products_below_64_bits(size: int, seed: int) -> None:
    for seeding in ("numpy", "splitmix64"):
        for m in seeded_multipliers(seeding, seed, (0, 7), 6, size)[1]:
            assert m % 2 == 1
            assert m * (size - 1) < 2**63
    assert multiplier_bound(size) >= 1


def test_presets_have_the_published_shapes(vocab_v3: CanonicalVocab, raw_vocab: CanonicalVocab) -> None:
    demo = named_spec("engram-demo").spec(vocab_v3)
    assert [demo.rows(layer) for layer in demo.layers] == [10_344_164, 10_348_242]
    for name, columns in [("engram-27b", 16), ("engram-40b", 16)]:
        spec = named_spec(name).spec(vocab_v3)
        assert (spec.layers, spec.columns) == ((1, 14), columns)
        assert min(p for layer in spec.layers for p in spec.moduli(layer)) > NAMED_SPECS[name].base_rows
    with pytest.raises(EngramError, match="addresses by raw token ids, but the vocabulary was made by the rule engram"):
        named_spec("qwen3.8-ple").spec(vocab_v3)
    with pytest.raises(UsageError, match='no spec is called "engram-1t"'):
        named_spec("engram-1t")
    assert named_spec("qwen3.8-ple").spec(raw_vocab).canonical_size == 248_320
