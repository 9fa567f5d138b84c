"""Every token is of one class, and a word's tokens are numbered from its first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashing.vocab import CanonicalVocab
from runtime.inspect.probes.rank_correlation import spearman
from runtime.inspect.probes.splits import by_count, by_size
from runtime.inspect.probes.token_classes import CLASSES, POSITIONS, TokenClasses, positions_in_words
from runtime.run import Run

PIECES = [
    "def",
    " def",
    "_file",
    "name",
    "42",
    " 7",
    "(",
    " ==",
    "\n    ",
    " ",
    "é",
    "\u0301",
    "中",
    "�",
    "",
    "<|end|>",
    "x2",
    "’s",
]
SPECIAL = PIECES.index("<|end|>")


def classified(*texts: str) -> list[tuple[str, str]]:
    classes = TokenClasses(texts).of(np.arange(len(texts))[None])
    places = positions_in_words(classes)
    return [(CLASSES[c], POSITIONS[p]) for c, p in zip(classes[0], places[0], strict=True)]


def test_what_a_person_would_say() -> None:
    found = classified("def", " __", "init", "__", "(", "self", ",", " x", "2", "b", ")", "\n", "return", " 0", "x", "f")
    start, inside = "word start", "inside a word"
    assert found == [
        (start, "first token"),
        (start, "first token"),
        (inside, "second token"),
        (inside, "third token"),
        ("punctuation", "not of a word"),
        (start, "first token"),
        ("punctuation", "not of a word"),
        (start, "first token"),
        ("number", "not of a word"),
        (inside, "second token"),
        ("punctuation", "not of a word"),
        ("white space", "not of a word"),
        (start, "first token"),
        ("number", "not of a word"),
        (inside, "second token"),
        (inside, "third token"),
    ]
    assert [name for name, _ in classified("a", "b", "c", "d", "e")] == [start, *[inside] * 4]
    assert classified("a", "b", "c", "d", "e")[-1][1] == "fourth and later"


def by_hand(texts: list[str], special: set[int], token_ids: list[int]) -> list[int]:
    """The classes by a loop over the text's characters."""
    import unicodedata

    found = []
    for place, token in enumerate(token_ids):
        text, before = texts[token], token_ids[place - 1] if place else None
        first = next((c for c in text if not c.isspace()), "")
        if token in special or not text or "�" in text:
            found.append(CLASSES.index("other"))
        elif not first:
            found.append(CLASSES.index("white space"))
        elif unicodedata.category(first)[0] == "N":
            found.append(CLASSES.index("number"))
        elif first != "_" and unicodedata.category(first)[0] not in "LM":
            found.append(CLASSES.index("punctuation"))
        else:
            goes_on = before is not None and before not in special and not text[0].isspace() and texts[before]
            last = texts[before][-1] if goes_on and before is not None and "�" not in texts[before] else " "
            joined = last == "_" or unicodedata.category(last)[0] in "LMN"
            found.append(CLASSES.index("inside a word" if joined else "word start"))
    return found


@given(st.lists(st.lists(st.integers(0, len(PIECES) - 1), min_size=7, max_size=7), min_size=1, max_size=3))
def test_classes_are_those_of_a_loop_over_characters(rows: list[list[int]]) -> None:
    found = TokenClasses(PIECES, frozenset({SPECIAL})).of(np.array(rows))
    assert found.tolist() == [by_hand(PIECES, {SPECIAL}, row) for row in rows]


def test_every_token_of_a_vocabulary_has_one(vocab_run: Run, vocab_v4: CanonicalVocab) -> None:
    for vocab in (vocab_run.vocab(), vocab_v4):
        found = TokenClasses.of_vocab(vocab).of(np.arange(len(vocab.texts))[None])
        assert found.shape == (1, len(vocab.texts))
        sizes = np.bincount(found[0], minlength=len(CLASSES))
        assert sizes.sum() == len(vocab.texts)
        assert len(sizes) == len(CLASSES)
        assert sizes.min() > 0


def test_a_sentencepiece_token_has_its_space_back() -> None:
    vocab = CanonicalVocab(("▁the", "re"), ("the", "re"), np.array([0, 1], np.int32), ("the", "re"))
    assert TokenClasses.of_vocab(vocab).of(np.array([[1, 0, 1]])).tolist() == [[0, 0, 1]]


@given(st.lists(st.integers(-1, 30), min_size=1, max_size=60))
def test_counts_are_in_one_part_each(counts: list[int]) -> None:
    found = by_count(np.array(counts), "times")
    assert found.sizes.sum() == len(counts)
    for count, part in zip(counts, found.parts, strict=True):
        name = found.names[part]
        if count <= 0:
            assert name == ("never" if count == 0 else "reaches back beyond the text")
        else:
            low, *high = (int(edge) for edge in name.split(" to "))
            assert low <= count <= (high[0] if high else low)


def test_quantiles_are_of_a_quarter_each() -> None:
    values = np.random.default_rng(0).permutation(np.arange(100) / 100)
    found = by_size(values, "nats")
    assert found.sizes.tolist() == [25, 25, 25, 25]
    assert found.names[0] == "0 to 0.24"
    assert by_size(np.zeros(5), "nats").sizes.tolist() == [5]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
def test_rank_correlation_is_that_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    """A value's rank is the mean of the places that it and its equals take, by counting."""
    x, y = np.array(pairs).T
    ranks = [[(v < value).sum() + ((v == value).sum() + 1) / 2 for value in v] for v in (x, y)]
    found = spearman(x, y)
    if any(np.std(rank) == 0 for rank in ranks):
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(ranks)[0, 1])
