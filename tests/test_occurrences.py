"""Where the training side has an n-gram or reads a row: positions against the slow rule, gates against the window run alone."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from hashing import reference
from hashing.base.errors import UsageError
from hashing.spec import HashSpec
from runtime.inspect import occurrences, places
from runtime.inspect.occurrences import RowContexts, gates_of_ngrams, row_contexts
from runtime.inspect.places import Places, Scan
from runtime.inspect.readings import AFTER, BEFORE, WINDOW, read
from runtime.model.points import watching
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun
from runtime.windows import hashes

LAYER, ALL = 1, 1 << 30
TOKENS = 4000  # of the side, for what the slow rule is asked


@pytest.fixture(scope="module")
def trained(trained_run: Run) -> TrainedRun:
    return TrainedRun.load(trained_run, torch.device("cpu"))


@pytest.fixture(scope="module")
def tokens(trained_run: Run) -> Tokens:
    return Tokens.open(trained_run.train_folder / "tokens")


@pytest.fixture(scope="module")
def spec(trained: TrainedRun) -> HashSpec:
    assert trained.store is not None
    return trained.store.spec


def scan_of(trained: TrainedRun, tokens: Tokens, spec: HashSpec) -> Scan:
    return Scan(tokens.ids("train")[:TOKENS], trained.vocab, spec)


def stream(trained: TrainedRun, tokens: Tokens) -> list[int]:
    """The canonical ids of the side, as far as the slow rule goes through it."""
    ids: list[int] = trained.vocab.mapping[tokens.ids("train")[:TOKENS]].tolist()
    return ids


@pytest.fixture(scope="module")
def read_rows(trained: TrainedRun, tokens: Tokens, spec: HashSpec) -> list[list[int]]:
    """What every position of the whole side reads, by the slow rule."""
    return reference.rows(spec, LAYER, trained.vocab.mapping[tokens.ids("train")].tolist())


def with_boundary(spec: HashSpec, ids: list[int]) -> HashSpec:
    """Whose look-back never crosses the most frequent id."""
    return replace(spec, boundary_id=Counter(ids).most_common(1)[0][0], seeding=None, seed=None)


def frequent_bigram(trained: TrainedRun, tokens: Tokens) -> tuple[int, int]:
    return Counter(pairwise(stream(trained, tokens))).most_common(1)[0][0]


def same(found: Places, expected: list[int]) -> None:
    assert found.occurrences == len(expected)
    assert sorted(found.positions.tolist()) == expected
    assert found.positions.tolist() == sorted(expected, key=lambda p: int(hashes(np.array([p]))[0]))


@pytest.mark.parametrize("boundary", [False, True])
def test_positions_of_ngrams_are_the_rules(
    trained: TrainedRun, tokens: Tokens, spec: HashSpec, boundary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of a few hundred tokens, so that n-grams lie across them; with a boundary, look-back never crosses it."""
    monkeypatch.setattr(places, "PIECE_TOKENS", 331)
    ids = stream(trained, tokens)
    spec = with_boundary(spec, ids) if boundary else spec
    slots = [reference.slots(spec, ids, t) for t in range(len(ids))]
    for order in spec.orders:
        there = Counter(tuple(read[order - 1 :: -1]) for read in slots)
        chosen = [ngram for ngram, _ in there.most_common(3)] + [tuple(slots[0][order - 1 :: -1])]
        found = scan_of(trained, tokens, spec).of_ngrams(chosen, ALL)
        for ngram, one in zip(chosen, found, strict=True):
            same(one, [t for t, read in enumerate(slots) if tuple(read[order - 1 :: -1]) == ngram])
            assert one.tokens == TOKENS


@pytest.mark.parametrize("boundary", [False, True])
def test_positions_of_rows_are_the_rules(
    trained: TrainedRun, tokens: Tokens, spec: HashSpec, boundary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "PIECE_TOKENS", 331)
    ids = stream(trained, tokens)
    spec = with_boundary(spec, ids) if boundary else spec
    table = reference.rows(spec, LAYER, ids)
    counts = Counter(row for read in table for row in read)
    unread = next(row for row in range(spec.rows(LAYER)) if row not in counts)
    chosen = [row for row, _ in counts.most_common(40)] + [table[7][5], unread]
    found = scan_of(trained, tokens, spec).of_rows([(LAYER, row) for row in chosen], ALL)
    for row, one in zip(chosen, found, strict=True):
        same(one, [t for t, read in enumerate(table) if row in read])


def test_a_sample_is_fair_and_part_of_a_larger_one(
    trained: TrainedRun, tokens: Tokens, spec: HashSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    ngram = frequent_bigram(trained, tokens)
    scan = scan_of(trained, tokens, spec)
    (whole,) = scan.of_ngrams([ngram], ALL)
    monkeypatch.setattr(places, "WAITING", 2)  # what is beyond the sample is dropped again and again
    monkeypatch.setattr(places, "PIECE_TOKENS", 100)
    (few,) = scan.of_ngrams([ngram], 3)
    assert few.occurrences == whole.occurrences > 3
    assert few.positions.tolist() == whole.positions.tolist()[:3]
    monkeypatch.setattr(places, "SCANNED_TOKENS", 1000)  # a side that is too large to be read
    (part,) = scan.of_ngrams([ngram], ALL)
    assert part.tokens == 1000
    assert set(part.positions.tolist()) < set(whole.positions.tolist())


def gates_by_hand(trained: TrainedRun, ids: np.ndarray, position: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Gates and effects of the window around a position, and where the window begins, run alone with the slow rule's rows."""
    length = min(WINDOW, len(ids))
    start = min(max(position - (length - 1 - AFTER), 0), len(ids) - length)
    assert trained.store is not None
    spec, before = trained.store.spec, max(0, start - trained.store.spec.max_order)
    canonical = trained.vocab.mapping[ids[before : start + length]].tolist()
    rows = reference.rows(spec, LAYER, canonical)[start - before :]
    vectors = torch.from_numpy(trained.tables[LAYER].gather(np.array(rows)).reshape(1, length, -1))
    window = torch.from_numpy(ids[None, start : start + length].astype(np.int64))
    gates: list[torch.Tensor] = []
    with torch.no_grad():
        with watching(trained.model, lambda name, value: gates.append(value) if name.endswith("gate") else None):
            own = trained.model.token_losses(window[:, :-1], window[:, 1:], lambda _: vectors[:, :-1])
            trained.model(window, lambda _: vectors)
        effects = trained.model.token_losses(window[:, :-1], window[:, 1:], None) - own
    return gates[-1].flatten().numpy(), np.array([np.nan, *effects[0].tolist()]), start


@pytest.mark.parametrize("tokens_in_all", [TOKENS, 40, 15])
def test_gates_and_effects_are_those_of_the_window_run_alone(trained: TrainedRun, tokens: Tokens, tokens_in_all: int) -> None:
    """At both ends of the side, and in sides that are shorter than a window, or than what is shown of it."""
    ids = np.asarray(tokens.ids("train")[:tokens_in_all])
    positions = np.unique([0, 1, 14, tokens_in_all // 2, tokens_in_all - 3, tokens_in_all - 1])
    found = read(trained, ids, positions)
    for number, position in enumerate(positions.tolist()):
        gates, effects, start = gates_by_hand(trained, ids, position)
        first = position - start - int(found.places[number])
        shown = slice(first, first + found.token_ids.shape[1])
        assert found.token_ids[number].tolist() == ids[start:][shown].tolist()
        np.testing.assert_allclose(found.gates[LAYER][number], gates[shown], atol=1e-5)
        np.testing.assert_allclose(found.effects[number], effects[shown], atol=1e-4)
        assert found.at(LAYER, np.array([number]))[0] == pytest.approx(gates[position - start], abs=1e-5)
    middle = np.flatnonzero(positions == tokens_in_all // 2)[0]
    assert tokens_in_all < WINDOW or (found.places[middle], found.token_ids.shape[1]) == (BEFORE, BEFORE + 1 + AFTER)


def test_quartiles_are_those_of_the_gates_at_the_positions(trained: TrainedRun, tokens: Tokens, spec: HashSpec) -> None:
    ids = tokens.ids("train")
    ngram = frequent_bigram(trained, tokens)
    (there,) = Scan(ids, trained.vocab, spec).of_ngrams([ngram], 30)
    gates = []
    for position in there.positions.tolist():
        by_hand, _, start = gates_by_hand(trained, ids, position)
        gates.append(by_hand[position - start])
    found = gates_of_ngrams(trained, tokens, [ngram], 30)[ngram][LAYER]
    assert found is not None
    assert (found.occurrences, found.sampled, found.tokens) == (there.occurrences, len(gates), len(ids))
    np.testing.assert_allclose(found.quartiles, np.quantile(gates, (0.25, 0.5, 0.75)), atol=1e-4)
    np.testing.assert_allclose((found.low, found.high), (min(gates), max(gates)), atol=1e-4)
    assert found.to_json()["quartiles"] == list(found.quartiles)


def test_an_ngram_that_the_side_does_not_have(trained: TrainedRun, tokens: Tokens) -> None:
    nowhere = (trained.vocab.size - 1,) * 3
    assert gates_of_ngrams(trained, tokens, [nowhere])[nowhere] == {}
    assert gates_of_ngrams(trained, tokens, [nowhere, nowhere[:2]]) == {nowhere: {}, nowhere[:2]: {}}
    with pytest.raises(UsageError, match="an n-gram of 4 tokens, expected 1 to 3"):
        gates_of_ngrams(trained, tokens, [(1, 2, 3, 4)])


def check_contexts(found: RowContexts) -> None:
    """The strongest come in order; bands ascend and hold their contexts."""
    contexts = [context for band in found.bands for context in band.contexts]
    for context in (*found.strongest, *contexts):
        assert len(context.tokens) == len(context.gates) == len(context.effect_nats)
        assert context.gate == context.gates[context.position]
    strongest = [context.gate for context in found.strongest]
    assert strongest == sorted(strongest, reverse=True)
    assert len(strongest) == min(20, found.sampled)
    assert max(context.gate for context in (*found.strongest, *contexts)) == strongest[0] == found.bands[-1].high
    edges = [edge for band in found.bands for edge in (band.low, band.high)]
    assert edges == sorted(edges)
    assert len(found.bands) == min(10, found.sampled)
    for band in found.bands:
        assert 1 <= len(band.contexts) <= 5
        assert all(band.low <= context.gate <= band.high for context in band.contexts)
    assert sum(found.gate.counts) == found.sampled <= found.occurrences
    assert found.gate.edges[0] == 0
    assert found.gate.edges[-1] == 1


def test_contexts_of_many_rows_are_those_of_each_alone(trained: TrainedRun, tokens: Tokens, spec: HashSpec) -> None:
    table = reference.rows(spec, LAYER, stream(trained, tokens)[:300])
    rows = [(LAYER, row) for row in table[40] + table[200]]
    together = row_contexts(trained, tokens, rows, most=40)
    assert set(together) == set(rows)
    for _, row in rows:
        check_contexts(together[LAYER, row])
    alone = row_contexts(trained, tokens, rows[3:4], most=40)[rows[3]]
    same_shape = alone.to_json(), together[rows[3]].to_json()
    assert [told["occurrences"] for told in same_shape] == [alone.occurrences] * 2
    for one, other in zip(alone.strongest, together[rows[3]].strongest, strict=True):
        assert one.gate == pytest.approx(other.gate, abs=2e-4)
    told = alone.to_json()
    assert set(told) == {"occurrences", "sampled", "tokens", "gate", "strongest", "bands"}
    assert set(told["strongest"][0]) == {"tokens", "position", "gates", "effect_nats"}
    assert set(told["bands"][0]) == {"low", "high", "contexts"}


def test_contexts_show_the_ngrams_that_read_the_row(trained: TrainedRun, tokens: Tokens, read_rows: list[list[int]]) -> None:
    row, stream_ids = read_rows[50][0], tokens.ids("train").tolist()  # of a bigram
    places_read = [t for t, line in enumerate(read_rows) if row in line]
    readers = {tuple(trained.vocab.texts[i] for i in stream_ids[t - 1 : t + 1]) for t in places_read if t}
    found = row_contexts(trained, tokens, [(LAYER, row)])[LAYER, row]
    assert found.occurrences == len(places_read)
    assert found.strongest
    for context in found.strongest:
        assert context.tokens[context.position - 1 : context.position + 1] in readers


def test_a_row_that_is_never_read_and_one_that_there_is_not(
    trained: TrainedRun, tokens: Tokens, spec: HashSpec, read_rows: list[list[int]]
) -> None:
    seen = {row for line in read_rows for row in line}
    unread = next((row for row in range(spec.rows(LAYER)) if row not in seen), None)
    assert unread is not None
    found = row_contexts(trained, tokens, [(LAYER, unread)])[LAYER, unread]
    assert (found.occurrences, found.sampled, found.strongest, found.bands) == (0, 0, (), ())
    assert sum(found.gate.counts) == 0
    assert row_contexts(trained, tokens, []) == {}
    with pytest.raises(UsageError, match=r"layer 1 has no row 999,999,999"):
        row_contexts(trained, tokens, [(LAYER, 999_999_999)])


def test_equal_gates_are_shared_out_among_bands() -> None:
    bands = occurrences._bands(np.array([0.5] * 30))
    assert len(bands) == 10
    assert all((low, high, len(chosen)) == (0.5, 0.5, 3) for low, high, chosen in bands)
    assert occurrences._bands(np.empty(0)) == []
    assert len(occurrences._bands(np.array([0.1, 0.2]))) == 2
