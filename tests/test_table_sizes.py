"""Tables of absurd sizes are refused by their numbers, before anything is written or counted to."""

from pathlib import Path

import numpy as np
import pytest

from hashing.base.errors import EngramError
from hashing.spec import MAX_MODULI, HashSpec, assign_primes, seeded_multipliers
from table.encodings.encoding import ENCODINGS
from table.store.manifest import MAX_SHARDS, Manifest, cut_layers
from table.store.store import TableStore, create_store

NO_MAP = np.empty(0, np.int32)


def spec_of(base: int, layers: int = 1) -> HashSpec:
    """Layers of four heads of about `base` rows."""
    numbers = tuple(range(layers))
    multipliers = seeded_multipliers("numpy", 0, numbers, 3, 100)
    return HashSpec(numbers, assign_primes(layers, 2, 2, base), multipliers, 0, 100, "of-a-test")


@pytest.mark.parametrize("rows", [10**12, 10**15, 10**18])
def test_a_table_beyond_the_address_space_is_not_made(tmp_path: Path, rows: int) -> None:
    with pytest.raises(EngramError, match=r"layer 0 would be [\d,]+ bytes, expected 70,368,744,177,664 at most"):
        create_store(tmp_path / "t.zarr", spec_of(rows // 4), NO_MAP, ENCODINGS["float32"], 32)
    assert list(tmp_path.iterdir()) == []


def test_the_largest_table_is_made_at_once_and_read(tmp_path: Path) -> None:
    store = create_store(tmp_path / "t.zarr", spec_of(5 * 10**11 // 4), NO_MAP, ENCODINGS["float32"], 32)
    assert store.manifest.shard_count(0) > 900_000
    last = store.spec.rows(0) - 1
    records = np.ones((2, 128), np.uint8)
    TableStore.open(store.path).read_records(0, last - 1, records)
    assert not records.any()


def test_more_shards_than_can_be_listed_are_refused() -> None:
    spec, encoding = spec_of(10**9), ENCODINGS["float32"]
    layers = cut_layers(spec, encoding, 32, shard_bytes=1 << 16)
    with pytest.raises(EngramError, match=rf"the tables would be [\d,]+ shards, expected {MAX_SHARDS:,} at most"):
        Manifest(encoding, 32, spec, layers)


def test_more_primes_than_can_be_found_are_not_looked_for() -> None:
    with pytest.raises(EngramError, match="100,000 layers of 3 orders of 8 heads need 2,400,000 primes, expected 8,192"):
        assign_primes(100_000, 3, 8, 1000)
    content = spec_of(1000).to_json()
    content["primes"] = [[[997] * MAX_MODULI] * 2]
    with pytest.raises(EngramError, match="need 16,384 primes"):
        HashSpec.from_json(content)
