"""exp in compiled code, against float64 and against itself in loops of other lengths."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from runtime.model.exp_kernel import LARGEST, LEAST, exp


@njit
def fill(x, out):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        out[i] = exp(x[i])


def filled(x: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.empty_like(x)
    fill(x, out)
    return out


def test_it_is_within_two_units_of_the_last_place() -> None:
    x = np.concatenate([np.linspace(LEAST, LARGEST, 1_000_003), np.linspace(-1, 1, 100_003)]).astype(np.float32)
    expected = np.exp(x.astype(np.float64))
    units = np.abs(filled(x) - expected) / np.spacing(expected.astype(np.float32))
    assert units.max() <= 2
    assert filled(np.zeros(9, np.float32)).tolist() == [1.0] * 9


def test_beyond_its_bounds_it_stays_at_them_and_nan_stays_nan() -> None:
    found = filled(np.array([-np.inf, -1e30, LEAST, LARGEST, 1e30, np.inf, np.nan], np.float32))
    assert found[0] == found[1] == found[2] > 0
    assert found[3] == found[4] == found[5] < np.inf
    assert np.isnan(found[6])


def test_a_number_s_bits_do_not_depend_on_those_beside_it() -> None:
    x = np.random.default_rng(1).normal(0, 20, 67).astype(np.float32)
    alone = np.concatenate([filled(x[i : i + 1]) for i in range(len(x))])
    for length in range(1, len(x) + 1):
        np.testing.assert_array_equal(filled(x[:length]), alone[:length])
