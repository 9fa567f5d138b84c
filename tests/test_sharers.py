"""Which n-grams read a row: by hashing the counted ones again, against following every document by the reference rule."""

from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashing import reference
from hashing.base.errors import EngramError
from hashing.ngrams.counter import NgramCounter
from hashing.ngrams.counts import NgramCounts
from hashing.ngrams.sharers import Known, column_of, readers_of
from hashing.spec import HashSpec, assign_primes, multiplier_bound
from hashing.vocab import CanonicalVocab
from tests.addressing import sequences
from tests.modules import loaded_by
from tests.vocabularies import raw_vocab

ByRow = dict[tuple[int, int], Counter[tuple[int, ...]]]  # (layer, row) → n-gram as the spec reads it → times


@st.composite
def toy_specs(draw: st.DrawFn) -> HashSpec:
    """Small enough to ask for every row; with and without a boundary and padding."""
    size, order, heads = draw(st.integers(2, 12)), draw(st.integers(2, 4)), draw(st.integers(1, 3))
    layers = tuple(sorted(draw(st.sets(st.integers(0, 9), min_size=1, max_size=2))))
    multiplier = st.integers(0, multiplier_bound(size) - 1).map(lambda r: 2 * r + 1)
    return HashSpec(
        layers=layers,
        primes=assign_primes(len(layers), order - 1, heads, draw(st.sampled_from([2, 40, 300]))),
        multipliers=tuple(tuple(draw(st.lists(multiplier, min_size=order, max_size=order))) for _ in layers),
        pad_id=draw(st.integers(0, size - 1)),
        canonical_size=size,
        vocab_fingerprint=raw_vocab(size).fingerprint,
        boundary_id=draw(st.none() | st.integers(0, size - 1)),
        rows_multiple=draw(st.sampled_from([1, 128])),
    )


def counted(folder: Path, vocab: CanonicalVocab, orders: tuple[int, ...], documents: list[list[int]]) -> NgramCounts:
    with NgramCounter(vocab, orders, 10_000, folder) as counter:
        for document in documents:
            counter.add(np.array(document, np.int32))
        counter.write(folder / "n.parquet")
    return NgramCounts.open(folder / "n.parquet")


def by_following(spec: HashSpec, documents: list[list[int]]) -> ByRow:
    """Every read of every token that is one, by the slow rule."""
    found: ByRow = defaultdict(Counter)
    for ids in documents:
        for layer in spec.layers:
            for t, rows in enumerate(reference.rows(spec, layer, ids)):
                slots = reference.slots(spec, ids, t)
                for column, row in enumerate(rows if ids[t] >= 0 else []):
                    found[layer, row][tuple(reversed(slots[: column // spec.heads + 2]))] += 1
    return found


@settings(max_examples=40, deadline=None)
@given(data=st.data(), spec=toy_specs())
def test_readers_are_those_that_brute_force_finds(data: st.DataObject, spec: HashSpec) -> None:
    documents = data.draw(st.lists(sequences(spec, 30).filter(lambda ids: max(ids, default=-1) >= 0), min_size=1, max_size=4))
    with TemporaryDirectory() as folder:
        counts = counted(Path(folder), raw_vocab(spec.canonical_size), tuple(spec.orders), documents)
        everything = {layer: range(spec.rows(layer)) for layer in spec.layers}
        some = {layer: data.draw(st.sets(st.sampled_from(rows), max_size=5)) for layer, rows in everything.items()}
        expected = by_following(spec, documents)
        for asked in (everything, some):
            found = readers_of(spec, counts, asked)
            assert {layer: set(of_row) for layer, of_row in found.items()} == {
                layer: set(rows) for layer, rows in asked.items()
            }
            for layer, of_row in found.items():
                for row, known in of_row.items():
                    assert {reader.ids: reader.count for reader in known} == expected.get((layer, row), {})
                    assert [reader.count for reader in known] == sorted((r.count for r in known), reverse=True)


def test_a_column_is_that_of_its_rows() -> None:
    spec = HashSpec((3,), (((5, 7), (11, 13)),), ((1, 3, 5),), 0, 9, "any", rows_multiple=10)
    found = [column_of(spec, 3, row) for row in range(40)]
    assert [(c.order, c.head, c.first, c.rows) if c else None for c in found] == [
        *[(2, 0, 0, 5)] * 5,
        *[(2, 1, 5, 7)] * 7,
        *[(3, 0, 12, 11)] * 11,
        *[(3, 1, 23, 13)] * 13,
        *[None] * 4,
    ]


def test_equally_frequent_ones_are_in_order_of_their_ids(tmp_path: Path) -> None:
    """With one row for every n-gram, a table has all of them."""
    vocab = raw_vocab(4)
    spec = HashSpec((0,), (((2,),),), ((1, 3),), 0, 4, vocab.fingerprint)
    counts = counted(tmp_path, vocab, (2,), [[1, 2], [3, 2], [1, 2]])
    found = readers_of(spec, counts, {0: [0, 1]})
    both = sorted([known for of_row in found[0].values() for known in of_row], key=lambda known: (-known.count, known.ids))
    assert both == [Known((0, 1), 2), Known((1, 2), 2), Known((0, 3), 1), Known((3, 2), 1)]
    for known in found[0].values():
        assert list(known) == sorted(known, key=lambda one: (-one.count, one.ids))


def test_counts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    vocab = raw_vocab(4)
    counts = counted(tmp_path, vocab, (2,), [[1, 2]])
    other = HashSpec((0,), (((5,),),), ((1, 3),), 0, 4, "another")
    with pytest.raises(EngramError, match="was counted with vocabulary"):
        readers_of(other, counts, {0: [1]})
    longer = HashSpec((0,), (((5,), (7,)),), ((1, 3, 5),), 0, 4, vocab.fingerprint)
    with pytest.raises(EngramError, match="has no 3-grams; it has orders 2"):
        readers_of(longer, counts, {0: range(12)})


def test_it_loads_nothing_compiled() -> None:
    assert loaded_by("import hashing.ngrams.sharers") & {"torch", "numba", "zarr"} == set()
