"""Whether a tokenizer gives back the text it encodes.

One that folds white space, case or accents, or has no token for some characters, encodes less than the text: what it loses on a
byte is then counted over bytes that none of its tokens stands for.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer

SAMPLE = (
    "def area(r):\n\treturn 3.14  *  r\n",
    "Two  spaces, a\ttab, “quotes” — and CAPITALS; 1,024 of them (or 50 %).\r\nNew line.",
    "Señor Müller façade naïve Ångström",
)


def lost_in_round_trip(tokenizer: Tokenizer, texts: Iterable[str] = SAMPLE) -> tuple[str, str] | None:
    """The first of the texts that comes back otherwise, with what comes back. A space put before a text is no loss."""
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        back = tokenizer.decode(ids, skip_special_tokens=False)
        if back.removeprefix(" ") != text.removeprefix(" "):
            return text, back
    return None


def loses_characters(tokenizer: Tokenizer, texts: Iterable[str] = SAMPLE) -> bool:
    """Whether bits per byte of text mislead with this tokenizer, judged by a sample unless texts are given."""
    return lost_in_round_trip(tokenizer, texts) is not None
