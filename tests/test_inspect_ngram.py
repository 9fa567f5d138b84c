"""`engram inspect ngram` against compiled addressing, and against counting by hand in the training side."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from runtime.inspect.ngram import view_ngram
from runtime.lookup import Addressing
from runtime.run import Run
from runtime.tokens import Tokens
from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore
from tests.commands import document, engram
from tests.modules import loaded_by
from tests.test_commands import CALL

PHRASES = ("self.", "def __init__", "is not None", "x", "raise ValueError", "return self", "if self", "the parser is a")


@pytest.mark.parametrize("phrase", PHRASES)
def test_rows_are_those_of_compiled_addressing(trained_run: Run, phrase: str) -> None:
    view, store, vocab = view_ngram(trained_run, phrase), TableStore.open(trained_run.tables_path), trained_run.vocab()
    found = Addressing(vocab, store.spec).addresses(np.array([trained_run.tokenizer().encode(phrase).ids]))
    assert view.canonical_ids == found.canonical_ids[0].tolist()
    for layer, orders in view.layers.items():
        reads = [read for order in store.spec.orders for read in orders[order]]
        rows = found.rows[layer][0, -1]
        assert [row for row, _ in reads] == rows.tolist()
        norms = np.linalg.norm(store.table(layer).gather(rows), axis=1)
        assert [norm for _, norm in reads] == pytest.approx(norms.tolist())


def test_rows_of_another_encoding_are_decoded(trained_run: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(trained_run.folder, run.folder)
    shutil.rmtree(run.tables_path)
    convert(TableStore.open(trained_run.tables_path), run.tables_path, ENCODINGS["bfloat16"])
    plain, short = view_ngram(trained_run, "self."), view_ngram(run, "self.")
    for layer, orders in plain.layers.items():
        for order, reads in orders.items():
            assert [row for row, _ in short.layers[layer][order]] == [row for row, _ in reads]
            assert [norm for _, norm in short.layers[layer][order]] == pytest.approx([norm for _, norm in reads], rel=0.01)


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
    found = view_ngram(trained_run, phrase).written_otherwise
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
    (token, count), last = longer.most_common(1)[0], view_ngram(trained_run, phrase).texts[-1]
    call = ("inspect", "ngram", phrase, "--run", trained_run.folder)
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
        told = document("inspect", "ngram", phrase, "--run", trained_run.folder)["after_a_space"]
        if inside[-len(alone) :] == alone or count <= own:
            assert told is None
        else:
            seen += 1
            assert told["count"] == count
            assert "".join(told["tokens"]) == f" {phrase}"
            note = engram("inspect", "ngram", phrase, "--run", trained_run.folder).stderr
            assert f"note: after a space the phrase is {' · '.join(map(repr, told['tokens']))}, {count:,} times" in note
    assert 0 < seen < 7


def test_it_says_which_side_it_counts(trained_run: Run) -> None:
    assert "in the training side" in engram("inspect", "ngram", "self.", "--run", trained_run.folder).stdout
    assert "in the corpus" not in engram("inspect", "ngram", "--help").stdout


def test_it_loads_nothing_compiled(trained_run: Run) -> None:
    call = ["inspect", "ngram", "self.", "--run", str(trained_run.folder)]
    assert loaded_by(CALL.format(command=call)) & {"torch", "numba", "zarr", "fastapi", "matplotlib"} == set()
