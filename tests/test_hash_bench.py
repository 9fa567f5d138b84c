"""`engram bench hash` compares ways that give the same rows, and names every one of them."""

import numpy as np
import pytest

from engram_cli.bench.hash_speed import NUMPY_WAYS, WAYS
from engram_cli.bench.numpy_rows import NumpyRows
from hashing.hasher import Hasher
from hashing.named_specs import named_spec
from tests.commands import document


@pytest.mark.parametrize("name", ["engram-demo", "deepseek-v4.1"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 50)])
@pytest.mark.parametrize("form", ["by_head", "by_order", "by_quotient"])
def test_every_form_of_numpy_gives_the_rows(name: str, shape: tuple[int, int], form: str) -> None:
    spec = named_spec(name).bare_spec()
    ids = np.random.default_rng(0).integers(0, spec.canonical_size, shape)
    for layer in spec.layers:
        out = np.zeros((*shape, spec.columns), np.int64)
        assert getattr(NumpyRows(spec, layer, out), form)(ids) is out
        assert np.array_equal(out, Hasher(spec).rows(layer, ids))


def test_every_way_at_every_size() -> None:
    told = document("bench", "hash", "--spec", "engram-demo", "--tokens", 1, "--tokens", 5000)
    report = told["specs"]["engram-demo"]
    assert (report["layers"], report["columns"]) == (2, 16)
    assert [size["tokens"] for size in report["sizes"]] == [1, 8192]
    for size in report["sizes"]:
        assert set(size["ways"]) == set(WAYS)
        times = {way: figures["given_is_times"] for way, figures in size["ways"].items()}
        assert times["given"] == 1
        assert size["times_fastest_numpy"] == pytest.approx(min(times[way] for way in NUMPY_WAYS), rel=0.1)
