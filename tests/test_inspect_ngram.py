"""`engram inspect ngram` against compiled addressing, brute force over all counted n-grams, and counting by hand."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from hashing import reference
from hashing.ngrams.counts import NgramCounts
from runtime.inspect.ngram import NgramView, OrderView, view_ngram
from runtime.inspect.subject import Subject
from runtime.lookup import Addressing
from runtime.run import Run
from runtime.tokens import Tokens
from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore
from tests.commands import document, engram, refused
from tests.modules import loaded_by
from tests.test_commands import CALL

PHRASES = ("self.", "def __init__", "is not None", "x", "raise ValueError", "return self", "if self", "the parser is a")


def looked_at(run: Run, phrase: str, every_token: bool = False) -> NgramView:
    return view_ngram(Subject.of_run(run), phrase, every_token)


def orders_of(view: NgramView) -> list[tuple[int, int, OrderView]]:
    return [(layer, order, found) for layer, of_layer in view.layers.items() for order, found in of_layer.orders.items()]


@pytest.mark.parametrize("phrase", PHRASES)
def test_rows_are_those_of_compiled_addressing(trained_run: Run, phrase: str) -> None:
    view, store, vocab = looked_at(trained_run, phrase), TableStore.open(trained_run.tables_path), trained_run.vocab()
    found = Addressing(vocab, store.spec).addresses(np.array([trained_run.tokenizer().encode(phrase).ids]))
    assert list(view.canonical_ids) == found.canonical_ids[0].tolist()
    for layer, of_layer in view.layers.items():
        heads = [head for order in of_layer.orders.values() for head in order.heads]
        rows = found.rows[layer][0, -1]
        assert [head.row for head in heads] == rows.tolist()
        norms = np.linalg.norm(store.table(layer).gather(rows), axis=1)
        assert [head.norm for head in heads] == pytest.approx(norms.tolist())


def test_rows_of_another_encoding_are_decoded(trained_run: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(trained_run.folder, run.folder)
    shutil.rmtree(run.tables_path)
    convert(TableStore.open(trained_run.tables_path), run.tables_path, ENCODINGS["bfloat16"])
    plain, short = (orders_of(looked_at(one, "self.")) for one in (trained_run, run))
    for (*_, one), (*_, other) in zip(plain, short, strict=True):
        assert one.rows == other.rows
        assert [head.norm for head in other.heads] == pytest.approx([head.norm for head in one.heads], rel=0.01)


def known_readers(run: Run, layer: int) -> dict[int, Counter[tuple[int, ...]]]:
    """Row → the counted n-grams that read it, each hashed alone by the reference rule. The spec has no boundary."""
    spec, counts = run.spec(), NgramCounts.open(run.folder / "ngrams.parquet")
    found: dict[int, Counter[tuple[int, ...]]] = {}
    for order in spec.orders:
        counted = counts.order(order)
        for ids, count in zip(counted.ids.tolist(), counted.counts.tolist(), strict=True):
            ngram = [i for i in ids if i >= 0]
            column = (order - 2) * spec.heads
            read = tuple(reversed(reference.slots(spec, ngram, len(ngram) - 1)[:order]))
            for row in reference.rows(spec, layer, ngram)[-1][column : column + spec.heads]:
                found.setdefault(row, Counter())[read] += count
    return found


def test_sharers_counts_and_agreement_are_those_of_brute_force(counted_run: Run) -> None:
    readers = {layer: known_readers(counted_run, layer) for layer in counted_run.spec().layers}
    shared = 0
    for phrase in PHRASES:
        for layer, _, order in orders_of(looked_at(counted_run, phrase)):
            own = [readers[layer].get(head.row, Counter())[order.ids] for head in order.heads]
            assert {order.corpus_count} == set(own)
            heaviest = alone = 0
            for head in order.heads:
                assert head.sharers is not None
                others = readers[layer].get(head.row, Counter()).copy()
                del others[order.ids]
                shared += len(others)
                assert head.sharers.others == len(others)
                assert head.sharers.other_count == sum(others.values())
                assert [found["count"] for found in head.sharers.heaviest] == sorted(others.values(), reverse=True)[:5]
                heaviest += own[0] >= max(others.values(), default=0)
                alone += not others
            if own[0]:
                assert order.agreement is not None
                assert (order.agreement.heaviest_in, order.agreement.alone_in) == (heaviest, alone)
            else:
                assert order.agreement is None
    assert shared > 20


def test_counts_are_the_corpus_and_reads_the_optimisers(counted_run: Run) -> None:
    view = document("inspect", "ngram", "self.", "--no-lens", "--run", counted_run.folder)
    vocab, tokens = counted_run.vocab(), Tokens.open(counted_run.train_folder / "tokens")
    pair = vocab.mapping[counted_run.tokenizer().encode("self.").ids[-2:]].tolist()
    sides = [vocab.mapping[tokens.ids(side)] for side in ("train", "validation")]
    by_side = [int(((ids[:-1] == pair[0]) & (ids[1:] == pair[1])).sum()) for ids in sides]
    state = load_file(next(counted_run.train_folder.glob("step-*")) / "moments.safetensors")
    for layer, of_layer in view["layers"].items():
        order = of_layer["orders"]["2"]
        assert (order["training_count"], order["corpus_count"]) == (by_side[0], sum(by_side))
        assert by_side[0] > 100
        assert order["row_reads"] == state[f"layers/{layer}/updates"][order["rows"]].tolist()
        assert min(order["row_reads"]) > 0


def test_every_token_is_seen_as_if_the_text_ended_there(counted_run: Run) -> None:
    whole = looked_at(counted_run, "if x is not None", every_token=True)
    assert len(whole.positions) == len(whole.tokens) > 3
    assert whole.positions[-1].layers == whole.layers
    assert whole.layers == looked_at(counted_run, "if x is not None").layers
    addressed = Addressing(counted_run.vocab(), counted_run.spec()).addresses(np.array([whole.token_ids]))
    for t, view in enumerate(whole.positions):
        assert view.token_ids == whole.token_ids[: t + 1]
        for layer, of_layer in view.layers.items():
            assert [row for order in of_layer.orders.values() for row in order.rows] == addressed.rows[layer][0, t].tolist()
    call = ("inspect", "ngram", "if x is not None", "--all", "--no-lens", "--run", counted_run.folder)
    told = document(*call)
    assert json.dumps(told["positions"][-1]["layers"]) == json.dumps(told["layers"])
    assert len(told["positions"]) == len(told["tokens"])
    assert engram(*call).stdout.count("'not' · 'none'") > 1


def test_without_counts_it_says_what_to_run(trained_run: Run) -> None:
    call = ("inspect", "ngram", "self.", "--no-lens", "--run", trained_run.folder)
    done = engram(*call)
    assert f"engram stats --run {trained_run.folder}\n" in done.stderr
    assert done.stderr.count("is not counted") == 1
    for layer in document(*call)["layers"].values():
        for order in layer["orders"].values():
            assert [order[name] for name in ("corpus_count", "sharers", "sharer_counts", "agreement")] == [None] * 4
            assert order["training_count"] is not None


def test_an_ngram_that_no_corpus_has(counted_run: Run) -> None:
    call = ("inspect", "ngram", "zqj zqj", "--no-lens", "--run", counted_run.folder)
    longest: dict[str, Any] = document(*call)["layers"]["1"]["orders"]["3"]
    assert (longest["corpus_count"], longest["training_count"], longest["agreement"]) == (0, 0, None)
    assert len(longest["sharers"]) == len(longest["rows"])
    assert engram(*call).returncode == 0


def test_counts_of_another_vocabulary(counted_run: Run, trained_run: Run, tmp_path: Path, corpus_path: Path) -> None:
    other = tmp_path / "other"
    assert engram("build-vocab", "--corpus", corpus_path, "--size", "300", "--run", other).returncode == 0
    assert engram("stats", corpus_path, "--run", other).returncode == 0
    call = ("inspect", "ngram", "self.", "--no-lens", "--run", trained_run.folder, "--counts")
    refused(engram(*call, other / "ngrams.parquet"), 1, "was counted with vocabulary")
    refused(engram(*call, tmp_path / "none.parquet"), 1, "no such file: .*none.parquet\nhint: engram stats")
    assert document(*call, counted_run.folder / "ngrams.parquet")["layers"]["1"]["orders"]["2"]["corpus_count"] > 0


@pytest.mark.parametrize("phrase", ["", "\udcff"])
def test_what_is_no_phrase(counted_run: Run, phrase: str) -> None:
    refused(engram("inspect", "ngram", phrase, "--no-lens", "--run", counted_run.folder), 2, "is empty|is no text")


def by_hand(run: Run, phrase: str) -> tuple[int, Counter[str]]:
    """How often the phrase's longest n-gram stands in the training side; the longer tokens in its last one's place."""
    vocab, spec = run.vocab(), run.spec()
    ids = run.tokenizer().encode(phrase).ids
    ngram = vocab.mapping[ids].tolist()[-spec.max_order :]
    raw = Tokens.open(run.train_folder / "tokens").ids("train").tolist()
    stream = vocab.mapping[raw].tolist()
    places = [i for i in range(len(stream) - len(ngram) + 1) if stream[i : i + len(ngram) - 1] == ngram[:-1]]
    last = len(ngram) - 1
    own = sum(stream[i + last] == ngram[-1] for i in places)
    here = [vocab.texts[raw[i + last]] for i in places]
    text = vocab.texts[ids[-1]]
    return own, Counter(token for token in here if token.startswith(text) and token != text)


@pytest.mark.parametrize("phrase", [phrase for phrase in PHRASES if len(phrase) > 1])
def test_a_last_token_that_is_usually_written_otherwise(trained_run: Run, phrase: str) -> None:
    own, longer = by_hand(trained_run, phrase)
    found = looked_at(trained_run, phrase).written_otherwise
    most = max(longer.values(), default=0)
    assert (found is not None) == (most > own)
    if found:
        assert longer[found.token] == found.count == most


def cut_phrase(run: Run) -> str:
    """The first three tokens of the training side whose last one, cut short by a character or more, is a token again."""
    vocab, tokenizer = run.vocab(), run.tokenizer()
    raw = Tokens.open(run.train_folder / "tokens").ids("train").tolist()
    for three in zip(raw, raw[1:], raw[2:], strict=False):
        first, second, last = (vocab.texts[i] for i in three)
        for end in range(len(last) - 1, 0, -1):
            texts = [vocab.texts[i] for i in tokenizer.encode(first + second + last[:end]).ids]
            if texts == [first, second, last[:end]]:
                own, longer = by_hand(run, "".join(texts))
                if max(longer.values(), default=0) > own:
                    return "".join(texts)
    raise AssertionError("no token of the training side can be cut")


def test_the_note_names_the_token_and_both_counts(trained_run: Run) -> None:
    """As where the corpus writes `__(` as one token, and the phrase ends in `__`."""
    phrase = cut_phrase(trained_run)
    own, longer = by_hand(trained_run, phrase)
    (token, count), last = longer.most_common(1)[0], looked_at(trained_run, phrase).texts[-1]
    call = ("inspect", "ngram", phrase, "--no-lens", "--run", trained_run.folder)
    assert document(*call)["written_otherwise"] == {"token": token, "count": count}
    said = engram(*call).stderr
    counted = f"{token!r} there {count:,} times, {last!r} {own:,} times"
    assert f"{last!r} is usually written otherwise: the training side has {counted}" in said


def test_a_phrase_that_running_text_tokenises_otherwise(trained_run: Run) -> None:
    vocab, tokenizer = trained_run.vocab(), trained_run.tokenizer()
    raw = Tokens.open(trained_run.train_folder / "tokens").ids("train").tolist()
    stream = vocab.mapping[raw].tolist()
    seen = 0
    for phrase in ("return value", "raise ValueError", "self.", "is not", "option", "action", "None"):
        alone, inside = (vocab.mapping[tokenizer.encode(text).ids].tolist() for text in (phrase, f" {phrase}"))
        own, count = (sum(stream[i : i + len(n)] == n for i in range(len(stream))) for n in (alone[-3:], inside[-3:]))
        told = document("inspect", "ngram", phrase, "--no-lens", "--run", trained_run.folder)["after_a_space"]
        if inside[-len(alone) :] == alone or count <= own:
            assert told is None
        else:
            seen += 1
            assert told["count"] == count
            assert "".join(told["tokens"]) == f" {phrase}"
            note = engram("inspect", "ngram", phrase, "--no-lens", "--run", trained_run.folder).stderr
            assert f"note: after a space the phrase is {' · '.join(map(repr, told['tokens']))}, {count:,} times" in note
    assert 0 < seen < 7


def test_it_says_what_it_counts(counted_run: Run) -> None:
    shown = engram("inspect", "ngram", "self.", "--no-lens", "--run", counted_run.folder).stdout
    assert "in the training side" in shown
    assert "in the corpus" in shown


@pytest.mark.parametrize("options", [[], ["--all"]])
def test_it_loads_nothing_compiled(counted_run: Run, options: list[str]) -> None:
    call = ["inspect", "ngram", "self.", "--no-lens", *options, "--run", str(counted_run.folder)]
    assert loaded_by(CALL.format(command=call)) & {"torch", "numba", "zarr", "fastapi", "matplotlib"} == set()
