"""Rules that say which tokens read alike: the published one, none at all, or a normaliser of the user's own.

A rule gives every token a *key*; tokens with the same key share a canonical id. The published rule (paper, section 2.2): a text
with U+FFFD is a fragment of a character, and its key is the raw vocabulary string; any other key is the normalised text, or the
text itself where normalising leaves nothing. The identity rule, which Qwen's PLE uses, keeps every token id apart.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers

from hashing.base.errors import EngramError, UsageError

LONE_SPACE = "\ue000"


@dataclass(frozen=True, slots=True)
class Rule:
    """A way to class tokens by what they read like."""

    name: str  # what fingerprints and files call it; for a normaliser of one's own, a digest of its definition
    normalizer: Any | None  # a normaliser of the tokenizers library; None keeps every token id apart, whatever its key

    def key(self, token: str, text: str) -> str:
        """The text that stands for a token's class; `token` is the tokenizer's own name for it, `text` what it decodes to."""
        if self.normalizer is None:
            return text
        if "\ufffd" in text:
            return token
        return self.normalizer.normalize_str(text) or text


def engram_normalizer() -> normalizers.Sequence:
    """The published normaliser, step by step; the lone space is parked in a private code point while the ends are stripped."""
    return normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.NFD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[ \t\r\n]+"), " "),
            normalizers.Replace(Regex(r"^ $"), LONE_SPACE),
            normalizers.Strip(),
            normalizers.Replace(LONE_SPACE, " "),
        ]
    )


ENGRAM = Rule("engram", engram_normalizer())
IDENTITY = Rule("identity", None)


def load_rule(name: str) -> Rule:
    """`engram`, `identity`, or the path of a JSON file holding a serialised normaliser of the tokenizers library.

    Raises UsageError when it is none of them, EngramError when the file holds something else.
    """
    for rule in (ENGRAM, IDENTITY):
        if name == rule.name:
            return rule
    path = Path(name)
    if not path.is_file():
        raise UsageError(
            f'no rule and no file is called "{name}"', hint="the rules are engram, identity, or the path of a normaliser's JSON"
        )
    return _read_normalizer(path)


def _read_normalizer(path: Path) -> Rule:
    try:
        definition = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise EngramError(f"{path} is not a normaliser: it is not JSON ({e})") from e
    # The library parses a normaliser only inside a tokenizer.
    holder = json.loads(Tokenizer(models.BPE()).to_str()) | {"normalizer": definition}
    try:
        normalizer = Tokenizer.from_str(json.dumps(holder)).normalizer
    except Exception as e:  # the library raises the bare class for every malformed definition
        raise EngramError(f"{path} is not a normaliser that the tokenizers library reads: {e}") from e
    if normalizer is None:
        raise EngramError(f"{path} is not a normaliser: it holds null", hint='for raw token ids, pass "identity"')
    digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:16]
    return Rule(f"normalizer:{digest}", normalizer)
