"""Exact counting against a plain Counter, whatever the budget, the shards and the form of the input."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hashing.base.errors import EngramError, UsageError
from hashing.ngrams.counter import NgramCounter, capacity_within
from hashing.ngrams.counts import NgramCounts, Totals
from hashing.ngrams.counts_writer import merge_counts, schema_of
from hashing.ngrams.packing import Packing
from hashing.rule import IDENTITY
from hashing.text.token_stream import Shard, array_pieces
from hashing.vocab import CanonicalVocab

CAPACITY = 1 << 20  # tokens; more than any corpus here has but the one that is to go over its budget
Expected = dict[tuple[int, ...], tuple[int, int]]


def small_vocab(size: int) -> CanonicalVocab:
    names = tuple(f"<{i}>" for i in range(size))
    return CanonicalVocab(names, names, np.arange(size, dtype=np.int32), names, IDENTITY.name)


def plain_counts(documents: Iterable[Sequence[int]], order: int) -> Expected:
    """(count, documents) of every n-gram: -1 before the document, and from a dead position on."""
    counts: Counter[tuple[int, ...]] = Counter()
    frequency: Counter[tuple[int, ...]] = Counter()
    for ids in documents:
        found = []
        for t in range(len(ids)):
            if ids[t] < 0:
                continue
            window = [ids[t - d] if t >= d else -1 for d in range(order)]
            stop = next((d for d, here in enumerate(window) if here < 0), order)
            found.append(tuple(reversed(window[:stop] + [-1] * (order - stop))))
        counts.update(found)
        frequency.update(set(found))
    return {ngram: (count, frequency[ngram]) for ngram, count in counts.items()}


def as_dict(file: NgramCounts, order: int) -> Expected:
    found = file.order(order)
    pairs = zip(found.counts.tolist(), found.documents.tolist(), strict=True)
    return dict(zip(map(tuple, found.ids.tolist()), pairs, strict=True))


def count(
    folder: Path, documents: Iterable[NDArray[np.integer]], orders: Sequence[int], vocab: CanonicalVocab, name: str = "n"
) -> NgramCounts:
    with NgramCounter(vocab, orders, CAPACITY, folder) as counter:
        for ids in documents:
            counter.add(ids)
        counter.write(folder / f"{name}.parquet")
    return NgramCounts.open(folder / f"{name}.parquet")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(-1, 5), max_size=30), max_size=6), st.sampled_from([6, 100_000, 300_000]), st.data())
def test_equals_a_plain_count(tmp_path: Path, documents: list[list[int]], size: int, data: st.DataObject) -> None:
    longest = data.draw(st.integers(2, 6))
    orders = list(range(2, longest + 1))
    wide = [[i + size - 6 if i >= 0 else i for i in ids] for ids in documents]
    arrays = [np.array(ids, np.int64) for ids in wide]
    if not any(i >= 0 for ids in wide for i in ids):
        with pytest.raises(EngramError, match="there is nothing to count"):
            count(tmp_path, arrays, orders, small_vocab(size))
        return
    file = count(tmp_path, arrays, orders, small_vocab(size))
    for order in orders:
        assert as_dict(file, order) == plain_counts(wide, order)


@pytest.mark.parametrize("orders", [(2, 3), (2, 3, 4, 5)])
def test_many_ngrams_that_end_alike(tmp_path: Path, orders: tuple[int, ...]) -> None:
    """All in the partition of their last two ids: its table grows several times, between small ones."""
    rng = np.random.default_rng(2)
    triples = [(i, 7, 9) for i in rng.permutation(30_000)[:6000]] + [(i, 7, 9) for i in range(20, 70)] * 3
    documents = [np.array(triples[i : i + 400]).ravel() for i in range(0, len(triples), 400)]
    file = count(tmp_path, documents, orders, small_vocab(30_000))
    for order in orders:
        assert as_dict(file, order) == plain_counts([ids.tolist() for ids in documents], order)


def skewed(tokens: int, size: int, seed: int = 0) -> NDArray[np.int32]:
    return (np.random.default_rng(seed).zipf(1.2, tokens) % size).astype(np.int32)


@pytest.fixture
def documents() -> list[NDArray[np.int32]]:
    ids = skewed(120_000, 3000)
    return np.split(ids, np.sort(np.random.default_rng(1).integers(0, len(ids), 40)))


def test_spilling_changes_nothing(tmp_path: Path) -> None:
    documents = np.split(skewed(24_000, 3000), np.sort(np.random.default_rng(1).integers(0, 24_000, 40)))
    vocab = small_vocab(3000)
    cut = {"longest_document": 1000, "window_tokens": 2000}
    files = []
    for capacity in (CAPACITY, 2200):
        with NgramCounter(vocab, (2, 3, 4), capacity, tmp_path, **cut) as counter:
            for ids in documents:
                counter.add(ids)
            counter.write(tmp_path / f"{capacity}.parquet")
            assert (counter.spills > 10) == (capacity < CAPACITY)
        files.append(NgramCounts.open(tmp_path / f"{capacity}.parquet"))
    whole, spilled = files
    for order in (2, 3, 4):
        assert as_dict(whole, order).keys() == plain_counts([d.tolist() for d in documents], order).keys()
        assert as_dict(spilled, order) == as_dict(whole, order)
    assert spilled.path.read_bytes() == whole.path.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("ngram-runs")] == []


def test_a_text_of_one_ngram_is_counted_in_parts(tmp_path: Path) -> None:
    """All n-grams fall into one partition, which is more than there is room for at a time."""
    documents = [np.full(500, 7)] * 40
    with NgramCounter(small_vocab(10), (2, 3), 40_000, tmp_path, longest_document=500, window_tokens=1000) as counter:
        for ids in documents:
            counter.add(ids)
        counter.write(tmp_path / "n.parquet")
        assert counter.spills > 1
    for order in (2, 3):
        assert as_dict(NgramCounts.open(tmp_path / "n.parquet"), order) == plain_counts([[7] * 500] * 40, order)


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path, documents: list[NDArray[np.int32]]) -> None:
    vocab = small_vocab(3000)
    count(tmp_path, documents, (2, 3), vocab, "a")
    count(tmp_path, documents, (2, 3), vocab, "b")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_counts_of_an_order_add_up_to_the_tokens(tmp_path: Path, documents: list[NDArray[np.int32]]) -> None:
    file = count(tmp_path, documents, (2, 3, 6), small_vocab(3000))
    assert file.totals.tokens == sum(map(len, documents))
    for order in file.totals.orders:
        assert file.order(order).counts.sum() == file.totals.tokens


def test_shards_merge_into_the_whole(tmp_path: Path, documents: list[NDArray[np.int32]]) -> None:
    vocab = small_vocab(3000)
    for i in range(3):
        count(tmp_path, documents[i::3], (2, 4), vocab, f"shard{i}")
    merge_counts([tmp_path / f"shard{i}.parquet" for i in range(3)], tmp_path / "merged.parquet")
    count(tmp_path, documents, (2, 4), vocab, "whole")
    assert (tmp_path / "merged.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_shards_split_documents(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(40).reshape(10, 4))
    pieces = [list(Shard(i, 3).of_pieces(array_pieces(tmp_path / "ids.npy", ""))) for i in range(3)]
    assert [p.token_ids[0] // 4 for p in pieces[1]] == [1, 4, 7]
    assert sum(map(len, pieces)) == 10
    with pytest.raises(EngramError, match="shard 4/3 does not exist"):
        Shard(3, 3)


def test_a_file_of_other_encodings_and_row_groups_is_the_same_counts(tmp_path: Path) -> None:
    """As files were written before: counts of 64 bits, whole numbers, zstd, other row groups."""
    ids = np.array([1, 2, 3, 1, 2, 4])
    new = count(tmp_path, [ids], (2, 3), small_vocab(6), "new")
    table = pq.read_table(new.path)
    assert table.schema.field("count").type == pa.int32()
    for name in ("count", "documents"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    pq.write_table(table, tmp_path / "old.parquet", row_group_size=3, use_dictionary=["order"], compression="zstd")
    old = NgramCounts.open(tmp_path / "old.parquet")
    assert all(as_dict(old, order) == as_dict(new, order) for order in (2, 3))
    assert old.order(2).counts.dtype == new.order(2).counts.dtype == np.int64
    merge_counts([old.path, new.path], tmp_path / "both.parquet")
    both = as_dict(NgramCounts.open(tmp_path / "both.parquet"), 2)
    assert both == {ngram: (2 * n, 2 * documents) for ngram, (n, documents) in as_dict(new, 2).items()}


def test_counts_are_as_wide_as_the_corpus_needs() -> None:
    for tokens, width in ((2**31 - 1, pa.int32()), (2**31, pa.int64())):
        assert schema_of(Totals((2,), tokens, 1, 9, "")).field("count").type == width


def test_files_of_other_vocabularies_or_orders_do_not_merge(tmp_path: Path, documents: list[NDArray[np.int32]]) -> None:
    count(tmp_path, documents, (2, 3), small_vocab(3000), "a")
    count(tmp_path, documents, (2, 3), small_vocab(3001), "b")
    count(tmp_path, documents, (2,), small_vocab(3000), "c")
    with pytest.raises(EngramError, match="was counted with vocabulary"):
        merge_counts([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "m.parquet")
    with pytest.raises(EngramError, match=r"has orders \(2,\)"):
        merge_counts([tmp_path / "a.parquet", tmp_path / "c.parquet"], tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()


def test_arrays_of_every_form(tmp_path: Path) -> None:
    rows = np.arange(12).reshape(3, 4) % 5
    np.save(tmp_path / "rows.npy", rows.astype(np.uint16))
    np.save(tmp_path / "flat.npy", rows.reshape(-1))
    pq.write_table(pa.table({"ids": [row.tolist() for row in rows]}), tmp_path / "rows.parquet")
    by_form = {
        name: [piece.token_ids.tolist() for piece in array_pieces(tmp_path / name, "ids")]
        for name in ("rows.npy", "flat.npy", "rows.parquet")
    }
    assert by_form["rows.npy"] == by_form["rows.parquet"] == rows.tolist()
    assert by_form["flat.npy"] == [rows.reshape(-1).tolist()]


def test_wrong_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros(3))
    np.save(tmp_path / "ids.npy", np.zeros(1000, np.int64))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "ids.npy").read_bytes()[:-8])
    (tmp_path / "text.npy").write_text("no array")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "text.parquet").read_bytes()[:-9])
    for name, message in [
        ("absent.npy", "no such file"),
        ("floats.npy", "holds float64"),
        ("cut.npy", "ends early"),
        ("text.npy", "is not a .npy file"),
        ("text.parquet", 'has no column "ids"; it has text'),
        ("cut.parquet", "cannot be read as Parquet"),
    ]:
        with pytest.raises(EngramError, match=message):
            list(array_pieces(tmp_path / name, "ids"))
    with pytest.raises(EngramError, match='column "text" holds string'):
        list(array_pieces(tmp_path / "text.parquet", "text"))


def test_an_id_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngramError, match="token id 10 is outside the vocabulary of 10 tokens"):
        count(tmp_path, [np.array([1, 10])], (2,), small_vocab(10))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_of_counts_is_refused(tmp_path: Path, documents: list[NDArray[np.int32]]) -> None:
    file = count(tmp_path, documents, (2, 3), small_vocab(3000))
    with pytest.raises(EngramError, match="has no 4-grams; it has orders 2, 3"):
        file.order(4)
    with pytest.raises(EngramError, match="counted with vocabulary"):
        file.check_vocab("other")
    content = file.path.read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-100])
    with pytest.raises(EngramError, match="cannot be read as Parquet"):
        NgramCounts.open(tmp_path / "cut.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(EngramError, match="is not a file of n-gram counts"):
        NgramCounts.open(tmp_path / "other.parquet")
    with pytest.raises(EngramError, match="no such file"):
        NgramCounts.open(tmp_path / "absent.parquet")


def test_a_budget_that_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match=r"memory budget is 1,000 bytes, expected at least [0-9,]+"):
        capacity_within(1000, Packing(2, 10))


@given(st.integers(2, 300_000), st.integers(2, 6), st.data())
@settings(deadline=None)
def test_packing_loses_nothing(size: int, order: int, data: st.DataObject) -> None:
    packing = Packing(order, size)
    ngram = data.draw(st.lists(st.integers(-1, size - 1), min_size=order, max_size=order))
    ids = np.array([ngram], np.int32)
    _, mixed, rest = packing.pack(ids)
    assert packing.unpack(mixed, rest, order).T.tolist() == [ngram]


WITHIN_BUDGET = """
import sys
from pathlib import Path
import numpy as np
from hashing.ngrams.counter import NgramCounter, capacity_within
from hashing.ngrams.packing import Packing
from hashing.rule import IDENTITY
from hashing.text.token_stream import array_pieces
from hashing.vocab import CanonicalVocab

folder, budget = Path(sys.argv[1]), int(sys.argv[2])
names = tuple(map(str, range(3000)))
vocab = CanonicalVocab(names, names, np.arange(3000, dtype=np.int32), names, IDENTITY.name)
with NgramCounter(vocab, (2, 3, 4), capacity_within(budget, Packing(4, 3000)), folder) as counter:
    for piece in array_pieces(folder / "ids.npy", ""):
        counter.add(piece.token_ids, piece.begins)
    counter.write(folder / "n.parquet")
    # Not getrusage, whose figure a process inherits from the one that started it.
    print(counter.spills, Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_peak_memory_stays_within_the_budget(tmp_path: Path) -> None:
    """What is to be counted is several times what the budget has room for; the peak is that of the whole process."""
    ids = skewed(4_000_000, 3000)
    np.save(tmp_path / "ids.npy", ids)
    count(tmp_path, [ids[:100]], (2, 3, 4), small_vocab(3000))  # so that what is measured compiles nothing
    budget = 360 << 20
    output = subprocess.run(
        [sys.executable, "-c", WITHIN_BUDGET, str(tmp_path), str(budget)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    spills, peak = map(int, output.split())
    assert spills >= 1
    assert peak * 1024 <= budget
    pairs = ids[:-1].astype(np.int64) * 3000 + ids[1:]
    distinct, counts = np.unique(pairs, return_counts=True)
    found = NgramCounts.open(tmp_path / "n.parquet").order(2)
    inside = found.ids[:, 0] >= 0
    order = np.argsort(found.ids[inside, 0].astype(np.int64) * 3000 + found.ids[inside, 1])
    assert np.array_equal(found.counts[inside][order], counts)
    assert len(distinct) == inside.sum()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("count", 0, "-grams add up to"),
        ("count", 10**6, "-grams add up to"),
        ("id_2", 999, "it holds an id outside 6 canonical ids"),
        ("id_2", -2, "it holds an id outside 6 canonical ids"),
    ],
)
def test_damaged_counts_are_refused(tmp_path: Path, column: str, value: int, message: str) -> None:
    file = count(tmp_path, [np.array([1, 2, 3, 1, 2])], (2, 3), small_vocab(6))
    table = pq.read_table(file.path)
    place = table.schema.get_field_index(column)
    values = [value, *table[column].to_pylist()[1:]]
    pq.write_table(
        table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type)), file.path
    )
    with pytest.raises(EngramError, match=f"is damaged: .*{message}"):
        NgramCounts.open(file.path).order(2)


SAID = {"format": 1, "orders": [2], "tokens": 5, "documents": 1, "canonical_size": 6, "vocab_fingerprint": "x"}
LIES = (
    {"orders": []},
    {"orders": [3, 2]},
    {"orders": ["2"]},
    {"tokens": 0},
    {"vocab_fingerprint": 3},
    {"format": 2},
    {"more": 1},
)


@pytest.mark.parametrize(
    "content", [b"no JSON", b"[]", b"{}", b'{"format": 1, "orders": 3}', *(json.dumps(SAID | lie).encode() for lie in LIES)]
)
def test_metadata_that_lies_is_refused(tmp_path: Path, content: bytes) -> None:
    table = pa.table({"order": [2]}).replace_schema_metadata({"engram.counts": content})
    pq.write_table(table, tmp_path / "n.parquet")
    with pytest.raises(EngramError, match=r"n\.parquet (is damaged|has format)"):
        NgramCounts.open(tmp_path / "n.parquet")


def test_ids_of_another_byte_order_count_alike(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(9).astype(">i4"))
    (piece,) = array_pieces(tmp_path / "ids.npy", "")
    assert piece.token_ids.dtype.isnative
    assert piece.token_ids.tolist() == list(range(9))


def test_numbers_that_are_no_token_ids_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([1, 2**63], np.uint64))
    with pytest.raises(EngramError, match="holds 9223372036854775808, which is no token id"):
        list(array_pieces(tmp_path / "ids.npy", ""))
    pq.write_table(pa.table({"ids": [[1, None, 3]]}), tmp_path / "ids.parquet")
    with pytest.raises(EngramError, match="a null among its token ids"):
        list(array_pieces(tmp_path / "ids.parquet", "ids"))
    np.save(tmp_path / "ids.npy", np.asfortranarray(np.ones((2, 3), np.int64)))
    with pytest.raises(EngramError, match="is stored column by column"):
        list(array_pieces(tmp_path / "ids.npy", ""))
