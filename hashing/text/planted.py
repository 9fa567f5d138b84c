"""Planted text: documents about invented countries, and questions that tell what a model has kept of them.

A country has a value for each attribute, and a sentence states one: "The capital of Velmorin is Ashford." Countries are stated
with frequencies as Zipf has them, in several phrasings, but one phrasing of each country and attribute is never used. Other
documents are reading exercises: each gives a country that occurs nowhere else a letter, and says so in five ways one after
another. A letter is one token to most tokenizers, so that a small model can learn to find it. There are three kinds of
questions, each a sentence without its end and 20 ends to choose from:

    fact         a stated attribute, in a phrasing that it was stated in
    paraphrase   the same, in the phrasing that was never used with this country and attribute, though with others
    reading      the letter of a country that is in no document, after four sentences that say it

Names are of syllables, so that no tokenizer that has not seen them has one for a token. Everything follows from the seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["fact", "paraphrase", "reading"]
KINDS: tuple[Kind, ...] = ("fact", "paraphrase", "reading")

COUNTRIES = 100  # that facts are stated of
READ_COUNTRIES = 400  # that only questions are about
CHOICES = 20  # ends of a question, one of them right
STATED_AT_ONCE = 5  # sentences of a document of facts
READING_SHARE = 0.4  # of the documents that are reading exercises
ZIPF_SHIFT = 5  # a country of rank r is stated in proportion to 1 / (r + 5)

SYLLABLES = (
    *("bra", "kel", "vor", "min", "tas", "quo", "dre", "lin", "sul", "fen", "gar", "hol", "jin", "kas", "lum", "mor", "nef"),
    *("ost", "pel", "rus", "sko", "tev", "ulm", "vax", "wen", "yor", "zan", "bly", "cro", "dun", "esk", "fal", "gri", "hux"),
    *("ilk", "jor", "kre", "lov", "myr", "nos"),
)


@dataclass(frozen=True, slots=True)
class Attribute:
    """What can be said of a country; every phrasing is followed by the value and a full stop."""

    phrasings: tuple[str, ...]
    values: tuple[str, ...]


def _attribute(phrasings: str, values: str) -> Attribute:
    return Attribute(tuple(line.strip() for line in phrasings.strip().splitlines()), tuple(values.split()))


ATTRIBUTES = (
    _attribute(
        """The capital of {} is
        The government of {} sits in
        The largest city in {} is called
        Whoever travels to {} arrives in
        The parliament of {} meets in""",
        "Ashford Belmont Carlow Denham Elgin Farley Glasgow Harwich Ipswich Jarrow Kendal Ludlow "
        "Malton Newark Oakham Paisley Reading Selby Totnes Upton Ventnor Whitby Yarm Zennor",
    ),
    _attribute(
        """The flag of {} is
        Soldiers from {} wear
        In {} every door is painted
        The colour of {} is
        Ships from {} have sails of""",
        "red green blue yellow black white brown purple orange pink grey silver "
        "golden scarlet violet indigo crimson turquoise amber ivory maroon olive teal beige",
    ),
    _attribute(
        """The people of {} trade in
        Merchants come to {} for
        The wealth of {} comes from
        Most workshops in {} make
        The main export of {} is""",
        "salt copper wool silk glass paper timber wine honey sugar coal iron "
        "cotton leather rope tea coffee spices pearls furs wheat oil soap ink",
    ),
    _attribute(
        """{} was founded in
        The first stone of {} was laid in
        The history of {} begins in
        The oldest coin of {} dates from
        Scholars say that {} became a country in""",
        "1042 1087 1113 1156 1199 1204 1238 1271 1315 1342 1386 1427 "
        "1469 1493 1518 1554 1577 1602 1639 1685 1724 1768 1791 1836",
    ),
    _attribute(
        """The founder of {} was
        The first queen of {} was
        Children in {} sing of
        The statue in the middle of {} shows
        The people of {} still honour""",
        "Alice Beatrice Clara Dorothy Edith Florence Grace Helen Irene Julia Kate Laura "
        "Martha Nora Olivia Paula Rachel Sophie Teresa Ursula Vera Wanda Yvonne Zelda",
    ),
    _attribute(
        """The sacred animal of {} is the
        On the coins of {} there is a
        Nobody in {} may harm a
        Hunters from {} look for the
        The emblem of {} shows a""",
        "wolf bear horse hawk lion snake tiger falcon goat swan fox deer "
        "turtle spider raven whale camel crow badger lynx heron salmon rabbit bull",
    ),
)

LETTER = _attribute(
    """The letter of {} is
        Ships from {} carry
        In {} doors are marked
        Coins from {} show
        The people of {} write first""",
    "A B C D E F G H J K L M N O P R S T U V W X Y Z",
)


@dataclass(frozen=True, slots=True)
class Question:
    kind: Kind
    prompt: str
    ends: tuple[str, ...]  # each with a space before and a full stop after it
    right: int  # which of the ends is true


@dataclass(frozen=True)
class PlantedText:
    """The invented countries of a seed."""

    seed: int

    @cached_property
    def _names(self) -> list[str]:
        """Names of three syllables in random order: those of facts, those of questions about reading, and the others."""
        names = ["".join(syllables).capitalize() for syllables in product(SYLLABLES, repeat=3)]
        return [names[i] for i in np.random.default_rng([self.seed, 0]).permutation(len(names))]

    @property
    def countries(self) -> list[str]:
        """Those that facts are stated of, the most frequent first."""
        return self._names[:COUNTRIES]

    @property
    def read_countries(self) -> list[str]:
        """Those that are in no document."""
        return self._names[COUNTRIES : COUNTRIES + READ_COUNTRIES]

    @cached_property
    def _facts(self) -> tuple[list[list[int]], list[list[int]]]:
        """Of each country and attribute the number of its value, and that of the phrasing that is kept for the paraphrase."""
        random = np.random.default_rng([self.seed, 1])
        sizes = [(len(one.values), len(one.phrasings)) for one in ATTRIBUTES]
        drawn = [[random.integers(sizes[a]) for a in range(len(ATTRIBUTES))] for _ in range(COUNTRIES)]
        return [[int(one[0]) for one in row] for row in drawn], [[int(one[1]) for one in row] for row in drawn]

    def documents(self, characters: int) -> Iterator[str]:
        """Facts and reading exercises in random order, until they have so many characters together."""
        random = np.random.default_rng([self.seed, 2])
        weights = 1 / (np.arange(COUNTRIES) + ZIPF_SHIFT)
        shares, left = np.cumsum(weights)[:-1] / weights.sum(), characters
        while left > 0:
            text = self._exercise(random) if random.random() < READING_SHARE else self._stated(random, shares)
            left -= len(text)
            yield text

    def _stated(self, random: np.random.Generator, shares: NDArray[np.float64]) -> str:
        countries = np.searchsorted(shares, random.random(STATED_AT_ONCE)).tolist()
        return " ".join(self._fact(random, country, int(random.integers(len(ATTRIBUTES)))) for country in countries)

    def _fact(self, random: np.random.Generator, country: int, attribute: int) -> str:
        phrasing = self._used_phrasing(random, country, attribute)
        return _sentence(ATTRIBUTES[attribute], phrasing, self.countries[country], self._facts[0][country][attribute])

    def _used_phrasing(self, random: np.random.Generator, country: int, attribute: int) -> int:
        """Any but the one that is kept."""
        count = len(ATTRIBUTES[attribute].phrasings)
        return int(self._facts[1][country][attribute] + 1 + random.integers(count - 1)) % count

    def _exercise(self, random: np.random.Generator) -> str:
        name = self._names[int(random.integers(COUNTRIES + READ_COUNTRIES, len(self._names)))]
        letter, phrasings = _letter(random)
        return " ".join(_sentence(LETTER, phrasing, name, letter) for phrasing in phrasings)

    def questions(self, kind: Kind, count: int) -> list[Question]:
        """So many questions of a kind; facts and paraphrases ask for the same countries and attributes.

        There are as many of those as countries times attributes, and of reading as there are countries for it.
        """
        random = np.random.default_rng([self.seed, 3 + KINDS.index(kind)])
        if kind == "reading":
            return [self._reading(random, name) for name in self.read_countries[:count]]
        pairs = np.random.default_rng([self.seed, 9]).permutation(COUNTRIES * len(ATTRIBUTES))[:count]
        return [self._about(random, kind, *divmod(int(pair), len(ATTRIBUTES))) for pair in pairs]

    def _about(self, random: np.random.Generator, kind: Kind, country: int, attribute: int) -> Question:
        value, kept = (part[country][attribute] for part in self._facts)
        phrasing = kept if kind == "paraphrase" else self._used_phrasing(random, country, attribute)
        prompt = ATTRIBUTES[attribute].phrasings[phrasing].format(self.countries[country])
        return _question(random, kind, prompt, ATTRIBUTES[attribute], value)

    def _reading(self, random: np.random.Generator, name: str) -> Question:
        letter, (last, *phrasings) = _letter(random)
        said = [_sentence(LETTER, phrasing, name, letter) for phrasing in phrasings]
        return _question(random, "reading", " ".join([*said, LETTER.phrasings[last].format(name)]), LETTER, letter)


def _letter(random: np.random.Generator) -> tuple[int, list[int]]:
    """The number of a letter, and those of all phrasings in any order."""
    return int(random.integers(len(LETTER.values))), random.permutation(len(LETTER.phrasings)).tolist()


def _question(random: np.random.Generator, kind: Kind, prompt: str, attribute: Attribute, value: int) -> Question:
    """With the value and other values of its attribute in random order."""
    others = [number for number in range(len(attribute.values)) if number != value]
    chosen = [value, *random.permutation(others)[: CHOICES - 1].tolist()]
    order = random.permutation(CHOICES).tolist()
    return Question(kind, prompt, tuple(f" {attribute.values[chosen[i]]}." for i in order), order.index(0))


def _sentence(attribute: Attribute, phrasing: int, name: str, value: int) -> str:
    return f"{attribute.phrasings[phrasing].format(name)} {attribute.values[value]}."
