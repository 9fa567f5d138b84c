"""Encodings against torch's and ml_dtypes' own types, and what must hold of every one."""

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from table.encodings.encoding import ENCODINGS, GROUP, Encoding, encoding

Values = NDArray[np.float32]

SIXTEEN = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
RANDOM = np.random.default_rng(0)


def samples(rows: int = 400, columns: int = 96) -> Values:
    """Rows over many magnitudes, with zeros, ties between codes and a zero row."""
    values = RANDOM.normal(size=(rows, columns)) * 2.0 ** RANDOM.integers(-20, 8, (rows, 1))
    values[:, ::7] = np.round(values[:, ::7] * 64) / 64
    values[0] = 0
    return values.astype(np.float32)


def same(a: Values, b: Values) -> bool:
    """Bit for bit, but for the payload of NaN."""
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))


@pytest.mark.parametrize("name", SIXTEEN)
def test_sixteen_bit_codes_decode_as_the_library_types(name: str) -> None:
    codes = np.arange(1 << 16, dtype=np.uint16)
    expected = codes.view(SIXTEEN[name]).astype(np.float32)
    decoded = encoding(name).decoded(codes.view(np.uint8).reshape(-1, 32), 16).reshape(-1)
    assert same(decoded, expected)
    again = encoding(name).encoded(decoded.reshape(-1, 16))[0].reshape(-1).view(np.uint16)
    number = ~np.isnan(decoded)
    assert np.array_equal(again[number], codes[number])
    assert np.isnan(again.view(SIXTEEN[name])[~number].astype(np.float32)).all()


@pytest.mark.parametrize("name", SIXTEEN)
def test_sixteen_bit_encoding_rounds_to_nearest_even(name: str) -> None:
    bits = RANDOM.integers(0, 1 << 32, 1 << 18, dtype=np.uint32)
    bits[::3] &= np.uint32(0xFFFF8000)  # ties of bfloat16
    bits[1::3] &= np.uint32(0xFFFFF000)  # ties of float16
    values = bits.view(np.float32)
    limit = float(ml_dtypes.finfo(SIXTEEN[name]).max)
    values = values[~np.isnan(values)]
    values = values[: len(values) // 16 * 16]
    clipped = np.where(np.isinf(values), values, np.clip(values, -limit, limit))
    records, saturated = encoding(name).encoded(values.reshape(-1, 16))
    assert np.array_equal(records.reshape(-1).view(np.uint16), clipped.astype(SIXTEEN[name]).view(np.uint16))
    with np.errstate(over="ignore"):
        overflow = np.isinf(values.astype(SIXTEEN[name]).astype(np.float32)) & np.isfinite(values)
    assert saturated == overflow.sum()


def test_every_e4m3_code_under_every_e8m0_scale_decodes_as_torch_and_ml_dtypes() -> None:
    codes = np.arange(256, dtype=np.uint8)
    records = np.empty((256, 8 * (GROUP + 1)), np.uint8)  # row r: all codes under scale r
    records[:, : 8 * GROUP] = codes
    records[:, 8 * GROUP :] = codes[:, None]
    decoded = encoding("e4m3-e8m0").decoded(records, 256)
    torch_codes = torch.from_numpy(codes).view(torch.float8_e4m3fn).float()
    torch_scales = torch.from_numpy(codes).view(torch.float8_e8m0fnu).float()
    assert same(decoded, (torch_codes[None, :] * torch_scales[:, None]).numpy())
    values, scales = codes.view(ml_dtypes.float8_e4m3fn), codes.view(ml_dtypes.float8_e8m0fnu)
    with np.errstate(over="ignore"):
        assert same(decoded, values.astype(np.float32)[None, :] * scales.astype(np.float32)[:, None])


def test_e4m3_encoding_rounds_to_nearest_even_and_saturates() -> None:
    grid = np.arange(127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    halfway = (grid[1:] + grid[:-1]) / 2
    values = np.concatenate([grid, halfway, np.nextafter(halfway, 0), np.nextafter(halfway, 999), samples(64, 64).ravel()])
    values = np.concatenate([values, -values]).astype(np.float32)
    expected = np.clip(values, -448, 448).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    records, saturated = encoding("e4m3").encoded(values[:, None], 1.0)
    assert np.array_equal(records[:, 0], expected)
    assert saturated == (np.abs(values) > 464).sum()
    beyond = np.array([[449, 464.1, 1e30, np.inf, -np.inf]], np.float32)
    assert encoding("e4m3").decoded(encoding("e4m3").encoded(beyond)[0], 5).tolist() == [[448, 448, 448, 448, -448]]


def test_e4m3_with_a_table_scale_is_the_identity_on_codes() -> None:
    codes = np.arange(256, dtype=np.uint8)[:, None]
    for scale in (1.0, 0.0123291015625, 1.9921875, 2.0**-30):  # all bfloat16
        decoded = encoding("e4m3").decoded(codes, 1, scale)
        expected = torch.from_numpy(codes).view(torch.float8_e4m3fn).float() * scale
        assert same(decoded, expected.numpy())
        assert np.array_equal(encoding("e4m3").encoded(decoded, scale)[0], codes)


def test_integer_codes_are_two_s_complement_times_a_bfloat16_scale() -> None:
    scale = np.array([0.30078125], ml_dtypes.bfloat16)
    record = np.concatenate([np.arange(256, dtype=np.uint8), scale.view(np.uint8)])[None]
    assert np.array_equal(
        encoding("int8").decoded(record, 256)[0], np.arange(256, dtype=np.uint8).view(np.int8) * np.float32(scale)
    )
    codes = np.arange(16, dtype=np.uint8).view(ml_dtypes.uint4)
    signed = np.arange(16, dtype=np.uint8).astype(np.int8)
    signed[8:] -= 16
    packed = (np.arange(0, 16, 2) | np.arange(1, 16, 2) << 4).astype(np.uint8)
    record = np.concatenate([packed, packed, scale.view(np.uint8)])[None]
    assert len(codes) == 16
    assert np.array_equal(encoding("int4").decoded(record, 32)[0], np.tile(signed, 2) * np.float32(scale))


@pytest.mark.parametrize("columns", [1, 31, 96, 160])
@pytest.mark.parametrize("kind", ENCODINGS.values(), ids=list(ENCODINGS))
def test_encoding_what_was_decoded_gives_the_same_record(kind: Encoding, columns: int) -> None:
    records, _ = kind.encoded(samples(300, columns), 0.5)
    assert records.shape == (300, kind.row_bytes(columns))
    again, saturated = kind.encoded(kind.decoded(records, columns, 0.5), 0.5)
    assert np.array_equal(again, records)
    assert saturated == 0


@pytest.mark.parametrize("name", ["e4m3-e8m0", "int8", "int4"])
def test_scaled_encodings_are_within_half_a_step_of_the_largest_in_the_group(name: str) -> None:
    values = samples()
    kind = encoding(name)
    error = np.abs(kind.decoded(kind.encoded(values)[0], 96) - values).reshape(len(values), -1, 96 if name == "int8" else GROUP)
    largest = np.abs(values).reshape(error.shape).max(axis=2, keepdims=True)
    step = {"e4m3-e8m0": 1 / 8, "int8": 1 / 127, "int4": 1 / 7}[name]
    assert (error <= largest * step * 0.51).all()


@pytest.mark.parametrize("name", ["int8", "int4", "e4m3-e8m0"])
def test_extreme_rows_keep_their_place(name: str) -> None:
    kind = encoding(name)
    values = np.zeros((5, 32), np.float32)
    values[1, 3] = np.nan
    values[2, 5] = np.inf
    values[3, 7] = 1e-44
    values[4] = 2.9e38
    decoded = kind.decoded(kind.encoded(values)[0], 32)
    assert np.array_equal(decoded[0], values[0])
    assert np.isnan(decoded[1, 3])
    assert np.isfinite(decoded[2]).all()
    assert decoded[2, 5] > 1e38
    assert abs(decoded[3, 7]) < 1e-37
    assert np.allclose(decoded[4], 2.9e38, rtol=0.07)
