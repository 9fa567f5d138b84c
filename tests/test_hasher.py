"""The compiled hasher against the reference, for every kind of spec, sequence and way of cutting it."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hashing import reference
from hashing.base.errors import EngramError
from hashing.hasher import TASK_POSITIONS, Hasher
from hashing.named_specs import named_spec
from hashing.spec import HashSpec
from hashing.vocab import CanonicalVocab
from tests.addressing import addressed, sequences, specs

property_test = settings(max_examples=60, deadline=None)  # numba compiles once per number of heads


def flags(length: int, starts: set[int]) -> NDArray[np.bool_]:
    marked = np.zeros((1, length), bool)
    marked[0, list(starts)] = True
    return marked


@property_test
@given(addressed())
def test_equals_the_reference(case: tuple[HashSpec, list[int], set[int]]) -> None:
    spec, ids, starts = case
    for layer in spec.layers:
        rows = Hasher(spec).rows(layer, np.array([ids], np.int64), starts=flags(len(ids), starts))
        assert rows[0].tolist() == reference.rows(spec, layer, ids, starts)


@property_test
@given(addressed(), st.data())
def test_any_split_gives_the_rows_of_the_whole(case: tuple[HashSpec, list[int], set[int]], data: st.DataObject) -> None:
    spec, ids, starts = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=5)))
    hasher, history, pieces = Hasher(spec), Hasher(spec).history(1), []
    whole, marked = np.array([ids], np.int64), flags(len(ids), starts)
    for first, last in pairwise([0, *cuts, len(ids)]):
        piece, marks = whole[:, first:last], marked[:, first:last]
        pieces += hasher.rows(spec.layers[0], piece, history, marks)[0].tolist()
        history = hasher.advance(piece, history, marks)
    assert pieces == reference.rows(spec, spec.layers[0], ids, starts)


@property_test
@given(specs(), st.data())
def test_batches_are_their_sequences(spec: HashSpec, data: st.DataObject) -> None:
    batch = data.draw(st.lists(sequences(spec, max_length=12), max_size=5))
    layer = spec.layers[-1]
    expected = [row for ids in batch for row in reference.rows(spec, layer, ids)]
    offsets = np.cumsum([0, *map(len, batch)])
    flat = np.array([i for ids in batch for i in ids], np.int64)
    assert Hasher(spec).ragged_rows(layer, flat, offsets).tolist() == expected
    longest = max(map(len, batch), default=0)
    padded = np.array([ids + [-1] * (longest - len(ids)) for ids in batch], np.int64).reshape(len(batch), longest)
    rows = Hasher(spec).rows(layer, padded)
    assert [row for ids, found in zip(batch, rows.tolist(), strict=True) for row in found[: len(ids)]] == expected


@property_test
@given(addressed())
def test_every_row_is_in_range_for_its_head(case: tuple[HashSpec, list[int], set[int]]) -> None:
    spec, ids, starts = case
    for layer in spec.layers:
        rows = Hasher(spec).rows(layer, np.array([ids], np.int64), starts=flags(len(ids), starts))[0]
        assert (rows >= np.array(spec.offsets(layer))).all()
        assert (rows < np.array(spec.offsets(layer)) + spec.moduli(layer)).all()


@pytest.mark.parametrize("name", ["engram-demo", "deepseek-v4.1"])
def test_extreme_mixes_over_published_moduli(name: str, vocab_v4: CanonicalVocab) -> None:
    """The largest ids and every remainder near 0 and p - 1 that a long random sequence meets."""
    spec = named_spec(name).spec(vocab_v4)
    ids = np.random.default_rng(7).integers(0, spec.canonical_size, (1, 20_000))
    ids[0, ::5] = spec.canonical_size - 1
    layer = spec.layers[0]
    multipliers = np.array(spec.multipliers[0], np.int64)
    slots = [np.pad(ids[0], (d, 0), constant_values=spec.pad_id)[: ids.shape[1]] for d in range(spec.max_order)]
    mix, columns = slots[0] * multipliers[0], []
    for order in spec.orders:
        mix = mix ^ (slots[order - 1] * multipliers[order - 1])
        columns += [mix % p for p in spec.primes[0][order - 2]]
    expected = np.stack(columns, axis=1) + spec.offsets(layer)
    assert np.array_equal(Hasher(spec).rows(layer, ids)[0], expected)


def test_tasks_and_threads_do_not_change_rows(vocab_v4: CanonicalVocab) -> None:
    """A batch of several tasks, cut inside its sequences, against each sequence as a task of its own."""
    spec = named_spec("deepseek-v4.1").spec(vocab_v4)
    ids = np.random.default_rng(1).integers(-1, spec.canonical_size, (5, TASK_POSITIONS // 2 + 1))
    ids[:, :: TASK_POSITIONS // 3] = -1
    whole = Hasher(spec).rows(14, ids, dtype=np.int32)
    for sequence, rows in zip(ids, whole, strict=True):
        assert np.array_equal(Hasher(spec).rows(14, sequence[None], dtype=np.int32)[0], rows)


@property_test
@given(addressed(), st.data())
def test_all_layers_at_once_token_by_token(case: tuple[HashSpec, list[int], set[int]], data: st.DataObject) -> None:
    """Decoding: one token a step, each step's history from the one before, every layer in one call."""
    spec, ids, starts = case
    hasher, marked = Hasher(spec), flags(len(ids), starts)
    history = hasher.history(1) if data.draw(st.booleans()) else None
    pieces: dict[int, list[list[int]]] = {layer: [] for layer in spec.layers}
    for t in range(len(ids)):
        token, marks = np.array([[ids[t]]], np.int64), marked[:, t : t + 1]
        for layer, rows in hasher.rows_by_layer(token, history, marks).items():
            pieces[layer] += rows[0].tolist()
        history = hasher.advance(token, history, marks)
    assert pieces == {layer: reference.rows(spec, layer, ids, starts) for layer in spec.layers}


def test_narrow_rows_and_given_memory(vocab_v4: CanonicalVocab) -> None:
    spec = named_spec("engram-demo").spec(vocab_v4)
    ids = np.random.default_rng(2).integers(0, spec.canonical_size, (2, 50)).astype(np.int32)
    wide = Hasher(spec).rows(1, ids)
    narrow = Hasher(spec).rows(1, ids, dtype=np.int32)
    assert (narrow.dtype, wide.dtype) == (np.int32, np.int64)
    assert np.array_equal(narrow, wide)
    out = np.empty_like(wide)
    assert Hasher(spec).rows(1, ids, out=out) is out
    assert np.array_equal(out, wide)


def test_rows_that_do_not_fit_are_refused(vocab_v4: CanonicalVocab) -> None:
    spec = named_spec("engram-demo").spec(vocab_v4)
    with pytest.raises(EngramError, match=r"10344164 rows, more than int16 can number"):
        Hasher(spec).rows(1, np.zeros((1, 1), np.int64), dtype=np.int16)


def test_an_id_beyond_the_vocabulary_is_refused(vocab_v4: CanonicalVocab) -> None:
    spec = named_spec("engram-demo").spec(vocab_v4)
    ids = np.zeros((2, 40_000), np.int64)
    ids[1, -1] = spec.canonical_size
    with pytest.raises(EngramError, match=f"canonical id {spec.canonical_size} is outside the vocabulary"):
        Hasher(spec).rows(1, ids)


FIRST_USE = """
import numpy as np
from hashing.hasher import TASK_POSITIONS, Hasher
from hashing.kernel import hash_range
from hashing.named_specs import named_spec

Hasher(named_spec("engram-demo").bare_spec()).rows(1, np.zeros((1, 4), np.int64))
print(sum(hash_range.stats.cache_misses.values()), sum(hash_range.stats.cache_hits.values()))
"""


def test_a_second_process_compiles_nothing() -> None:
    Hasher(named_spec("engram-demo").bare_spec()).rows(1, np.zeros((1, 4), np.int64))
    done = subprocess.run([sys.executable, "-c", FIRST_USE], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0", "1"]
