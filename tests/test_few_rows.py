"""Decoding a few rows by numpy against the compiled kernels, which are themselves held against torch's types."""

import numpy as np
import pytest

from table.encodings.encoding import ENCODINGS
from table.encodings.few_rows import decoded_few


@pytest.mark.parametrize("head_dim", [1, 7, 32, 70])
@pytest.mark.parametrize("name", ENCODINGS)
def test_every_code_is_decoded_as_the_kernel_does(name: str, head_dim: int) -> None:
    encoding, random = ENCODINGS[name], np.random.default_rng(head_dim)
    records = random.integers(0, 256, (3000, encoding.row_bytes(head_dim)), dtype=np.uint8)
    scale = 0.0123 if encoding.table_scale else 1.0
    expected, found = encoding.decoded(records, head_dim, scale), decoded_few(encoding, records, head_dim, scale)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found)[found == 0], np.signbit(expected)[expected == 0])
