"""Planted text: the same for the same seed, true to itself, and nothing that a question asks for leaks into it."""

import re
from collections import Counter

import pytest

from hashing.text.planted import ATTRIBUTES, CHOICES, COUNTRIES, KINDS, LETTER, SYLLABLES, PlantedText, Question
from hashing.text.tokenizer import train_tokenizer
from tests.corpora import MODULES

CHARACTERS = 1_500_000
TEXT = PlantedText(3)
DOCUMENTS = list(TEXT.documents(CHARACTERS))
SENTENCES = [f"{sentence}." for text in DOCUMENTS for sentence in text.removesuffix(".").split(". ")]

NAME = re.compile(rf"({'|'.join(SYLLABLES).title()})({'|'.join(SYLLABLES)}){{2}}")


def questions(kind: str) -> list[Question]:
    return TEXT.questions(kind, 300)  # type: ignore[arg-type]


def test_everything_follows_from_the_seed() -> None:
    again, other = PlantedText(3), PlantedText(4)
    assert list(again.documents(CHARACTERS)) == DOCUMENTS
    assert [again.questions(kind, 300) for kind in KINDS] == [questions(kind) for kind in KINDS]
    assert list(other.documents(1000)) != DOCUMENTS[: len(list(other.documents(1000)))]
    assert other.questions("fact", 300) != questions("fact")


def test_it_is_as_long_as_it_is_asked_to_be() -> None:
    assert CHARACTERS <= sum(map(len, DOCUMENTS)) < CHARACTERS + 1000
    shorter = list(TEXT.documents(20_000))
    assert shorter == DOCUMENTS[: len(shorter)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_has_twenty_different_ends_of_one_attribute(kind: str) -> None:
    asked = questions(kind)
    assert len(asked) == 300
    for question in asked:
        words = {end[1:-1] for end in question.ends}
        assert len(words) == len(question.ends) == CHOICES
        assert any(words <= set(attribute.values) for attribute in (*ATTRIBUTES, LETTER))
    assert min(Counter(question.right for question in asked).values()) > 0


def test_whoever_looks_facts_up_in_the_text_is_right() -> None:
    """An oracle: the sentence of the text that begins as the question does, or that states the same in other words."""
    stated = {sentence.rpartition(" ")[0]: sentence.rpartition(" ")[2] for sentence in SENTENCES}
    found = {sentence.rpartition(" ")[0] for sentence in SENTENCES}
    assert all(f" {stated[one.prompt]}" == one.ends[one.right] for one in questions("fact") if one.prompt in found)
    assert sum(one.prompt in found for one in questions("fact")) > 290


def test_a_paraphrase_is_in_no_document_though_its_words_are_with_other_countries() -> None:
    used = {NAME.sub("{}", sentence.rpartition(" ")[0]) for sentence in SENTENCES}
    whole = "\n".join(DOCUMENTS)
    for question in questions("paraphrase"):
        assert question.prompt not in whole
        assert NAME.sub("{}", question.prompt) in used
    assert used == {phrasing for attribute in (*ATTRIBUTES, LETTER) for phrasing in attribute.phrasings}


def test_facts_and_paraphrases_ask_for_the_same() -> None:
    pairs = zip(questions("fact"), questions("paraphrase"), strict=True)
    assert all(one.prompt != other.prompt and one.ends[one.right] == other.ends[other.right] for one, other in pairs)


def test_a_reading_question_has_its_answer_in_its_passage_and_its_country_in_no_document() -> None:
    whole = "\n".join(DOCUMENTS)
    for question in questions("reading"):
        passage, asked = question.prompt.rsplit(". ", 1)
        assert [end for end in question.ends if end in f"{passage}."] == [question.ends[question.right]]
        (name,) = [name for name in TEXT.read_countries if f" {name}" in f" {asked}"]
        assert passage.count(name) == 4
        assert asked.replace(name, "") not in passage.replace(name, "")
        assert name not in whole
    assert not set(TEXT.read_countries) & set(TEXT.countries)


def test_countries_are_stated_as_often_as_zipf_has_it() -> None:
    counts = Counter(name for name in re.findall(r"\b[A-Z]\w{5,}", "\n".join(DOCUMENTS)) if name in set(TEXT.countries))
    often, seldom = (sum(counts[name] for name in part) for part in (TEXT.countries[:5], TEXT.countries[-5:]))
    expected = sum(1 / (rank + 5) for rank in range(5)) / sum(1 / (COUNTRIES - rank + 4) for rank in range(5))
    assert 0.8 * expected < often / seldom < 1.25 * expected
    assert min(counts[name] for name in TEXT.countries) > 0


def test_a_tokenizer_that_has_not_seen_them_has_no_token_for_a_name() -> None:
    import inspect

    tokenizer = train_tokenizer(map(inspect.getsource, MODULES), 2048)
    lengths = [len(tokenizer.encode(f" {name}").ids) for name in TEXT.countries + TEXT.read_countries]
    assert min(lengths) >= 2
    assert sorted(lengths)[len(lengths) // 10] >= 4
