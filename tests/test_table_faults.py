"""What a scan finds in records, against numpy over their decoded values, and however the records are cut into pieces."""

import re

import numpy as np
import pytest

from table.encodings.encoding import ENCODINGS, Encoding, Records
from table.faults import RowFaults
from table.store.checksum import BLOCK_BYTES, block_checksums
from table.store.manifest import row_step

HEAD_DIM = 96
WITH_NAN = [name for name in ENCODINGS if not name.startswith("int")]  # whose codes can be NaN
WITH_SCALES = ["e4m3-e8m0", "int8", "int4"]


def damaged(kind: Encoding, rows: int) -> Records:
    """Records with rows of zeros, of NaN and of infinity here and there."""
    random = np.random.default_rng(1)
    values = random.standard_normal((rows, HEAD_DIM), np.float32)
    records = kind.encoded(values)[0]
    codes = kind.code_bytes(HEAD_DIM)
    for row in random.integers(0, rows, rows // 20):
        records[row, :codes] = 0
    word = np.dtype(kind.word)
    for row in random.integers(0, rows, rows // 50):
        place = int(random.integers(0, codes // word.itemsize))
        records[row].view(word)[place] = random.choice([kind.magnitude, kind.not_finite]) & kind.magnitude
    return records


def scanned(kind: Encoding, records: Records, pieces: int = 1, first: int = 0) -> RowFaults:
    """What is found by a scan of each piece, the later pieces joined first."""
    found = RowFaults(kind, HEAD_DIM)
    size = -(-len(records) // pieces)
    for begin in range((pieces - 1) * size, -1, -size):
        part = RowFaults(kind, HEAD_DIM)
        part.scan(first + begin, records[begin : begin + size])
        found.add(part)
    return found


@pytest.mark.parametrize("name", WITH_NAN)
def test_codes_that_are_no_numbers_and_zeros_are_those_of_the_decoded_rows(name: str) -> None:
    kind = ENCODINGS[name]
    records = damaged(kind, 3000)
    values = kind.decoded(records, HEAD_DIM)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    found = scanned(kind, records, first=100)
    assert found.found() == [(100 + bad[0], f"holds a code that is no number ({len(bad):,} such rows)")]
    assert found.zero_rows == np.count_nonzero((values == 0).all(axis=1))


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_every_integer_code_is_a_number(name: str) -> None:
    records = np.random.default_rng(0).integers(0, 256, (500, ENCODINGS[name].row_bytes(HEAD_DIM)), np.uint8)
    assert not any("code" in fault for _, fault in scanned(ENCODINGS[name], records).found())


@pytest.mark.parametrize("name", WITH_SCALES)
def test_scales_are_judged_one_by_one(name: str) -> None:
    kind = ENCODINGS[name]
    records = kind.encoded(np.random.default_rng(0).standard_normal((2000, HEAD_DIM), np.float32))[0]
    scales = records[:, kind.code_bytes(HEAD_DIM) :].reshape(2000, -1, kind.scale_bytes)
    exponents = scales[..., 0].astype(int) if kind.scale_bytes == 1 else scales.view("<u2")[..., 0].astype(int) >> 7
    usual = int(np.sort(exponents, axis=None)[(exponents.size - 1) // 2])
    far = usual - 40
    for row in (1999, 777):
        scales[row, -1] = far if kind.scale_bytes == 1 else np.array([far << 7], "<u2").view(np.uint8)
    text = f"has a scale near 2^{far - 127}, far from the usual 2^{usual - 127} (2 such scales)"
    assert scanned(kind, records).found() == [(777, text)]
    scales[1500, 0] = 255
    kinds = {fault for _, fault in scanned(kind, records).found()}
    assert any(re.search(r"a scale that is (no number|negative) \(1 such scales\)", fault) for fault in kinds)


@pytest.mark.parametrize("pieces", [2, 7])
@pytest.mark.parametrize("kind", ENCODINGS.values(), ids=list(ENCODINGS))
def test_pieces_find_together_what_one_scan_finds(kind: Encoding, pieces: int) -> None:
    records = damaged(kind, 2100)
    whole, parts = scanned(kind, records), scanned(kind, records, pieces)
    assert parts.found() == whole.found()
    assert parts.zero_rows == whole.zero_rows


@pytest.mark.parametrize("kind", ENCODINGS.values(), ids=list(ENCODINGS))
def test_summing_in_passing_gives_the_checksums_and_the_same_faults(kind: Encoding) -> None:
    row_bytes = kind.row_bytes(HEAD_DIM)
    records = np.zeros((row_step(row_bytes), row_bytes), np.uint8)
    rows = len(records) - 5  # the rest is padding, which is summed and not looked at
    records[:rows] = damaged(kind, rows)
    records[rows:] = 0xFF
    found = RowFaults(kind, HEAD_DIM)
    sums = found.scan_and_sum(10, records, rows)
    assert records.nbytes % BLOCK_BYTES == 0
    assert np.array_equal(sums, block_checksums(records.reshape(-1)))
    plain = scanned(kind, records[:rows], first=10)
    assert (found.found(), found.zero_rows) == (plain.found(), plain.zero_rows)


def test_padding_alone_is_summed() -> None:
    kind = ENCODINGS["float32"]
    records = np.zeros((row_step(4 * HEAD_DIM), 4 * HEAD_DIM), np.uint8)
    found = RowFaults(kind, HEAD_DIM)
    assert np.array_equal(found.scan_and_sum(0, records, 0), block_checksums(records.reshape(-1)))
    assert (found.found(), found.zero_rows) == ([], 0)
