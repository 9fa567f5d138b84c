"""Wherever rows live, the vectors are the same, and rows on disk are asked for before they are needed."""

import os
import time

import numpy as np
import pytest
import torch

from runtime.placement.host import FEW_ROWS
from runtime.placement.placement import PlacementName, place
from table.store.gather import Table
from table.store.store import TableStore, write_store
from tests.stores import spec_of_heads

CPU = torch.device("cpu")
PRIMES = (20_011, 20_021, 20_023, 20_029)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    values = np.random.default_rng(0).standard_normal((sum(PRIMES), 64), np.float32)
    return write_store(tmp_path_factory.mktemp("store") / "t.zarr", spec_of_heads(PRIMES), np.empty(0, np.int32), {1: values})


@pytest.mark.parametrize("name", ["device", "host", "disk", "mapped"])
@pytest.mark.parametrize("positions", [1, 5, FEW_ROWS])
def test_vectors_are_the_rows_side_by_side(store: TableStore, name: PlacementName, positions: int) -> None:
    rows = np.random.default_rng(positions).integers(0, sum(PRIMES), (2, positions, 4))
    vectors = place({layer: store.table(layer) for layer in store.spec.layers}, name, CPU).fetch({1: rows})(1)
    assert np.array_equal(vectors.numpy(), store.layer(1)[rows].reshape(2, positions, 256))


@pytest.fixture
def cold(store: TableStore) -> Table:
    """The table, with none of it in memory."""
    for path in store.path.glob("layers/1/c/*/0"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return store.table(1)


@pytest.mark.parametrize("positions", [3, FEW_ROWS])
def test_rows_on_disk_are_asked_for_before_the_layer_needs_them(store: TableStore, cold: Table, positions: int) -> None:
    """Nobody asks for the vectors here: that rows come into memory is the request alone."""
    placement, before = place({layer: store.table(layer) for layer in store.spec.layers}, "disk", CPU), cold.resident_bytes()
    placement.fetch({1: np.random.default_rng(1).integers(0, sum(PRIMES), (1, positions, 4))})
    deadline = time.monotonic() + 10
    while cold.resident_bytes() <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cold.resident_bytes() > before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies on a stream of their own are for a GPU")
@pytest.mark.parametrize("name", ["device", "host", "disk", "mapped"])
@pytest.mark.parametrize("positions", [1, FEW_ROWS])
def test_vectors_on_a_gpu(store: TableStore, name: PlacementName, positions: int) -> None:
    device, random = torch.device("cuda"), np.random.default_rng(positions)
    placement = place({1: store.table(1)}, name, device)
    for _ in range(20):  # memory that is used again must not be written before it was read
        rows = random.integers(0, sum(PRIMES), (2, positions, 4))
        busy = torch.randn(512, 512, device=device) @ torch.randn(512, 512, device=device)
        vectors = placement.fetch({1: rows})(1)
        assert vectors is not None
        doubled = vectors * 2 + 0 * busy.sum()
        assert np.array_equal(doubled.cpu().numpy(), 2 * store.layer(1)[rows].reshape(2, positions, 256))
