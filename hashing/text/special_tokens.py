"""Which token ends a document, and which one pads: as the files beside a tokenizer say, else one of the usual names.

`tokenizer.json` does not say. Of the two files that do, `tokenizer_config.json` goes before `special_tokens_map.json`; in both,
`eos_token` and `pad_token` are a token's name, or an object with the name under `content`. A tokenizer without a pad pads with
its end-of-text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tokenizers import Tokenizer

from hashing.base.json_object import JsonObject, read_json
from hashing.text.tokenizer import is_hub_id

FILES = ("tokenizer_config.json", "special_tokens_map.json")
LIKELY_SHOWN = 8
MAX_BYTES = 1 << 26  # of each: a configuration lists every added token
# Names that end a document before those that end a turn, and a separator last.
END_OF_TEXT = (
    "<|endoftext|>",
    "<｜end▁of▁sentence｜>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<eos>",
    "</s>",
    "<EOT>",
    "<eot>",
    "<EOS>",
    "<|eos|>",
    "<|EOS|>",
    "<|eot|>",
    "<|EOT|>",
    "<EOS_TOKEN>",
    "<|end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "[EOS]",
    "[EOT]",
    "[SEP]",
)
USUAL = "<|endoftext|>, </s>, <EOT> or [SEP]"  # as a message names a few of them
PAD = (
    "[PAD]",
    "<pad>",
    "<PAD>",
    "<|pad|>",
    "<|PAD|>",
    "<｜▁pad▁｜>",
    "<|padding|>",
    "<|pad_id|>",
    "<|finetune_right_pad_id|>",
    "<PAD_TOKEN>",
    "<|fim_pad|>",
)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    eos_id: int | None
    pad_id: int | None

    @classmethod
    def find(cls, id_of: Callable[[str], int | None], named: Mapping[str, str] | None = None) -> "SpecialTokens":
        """Of the tokens that have an id: those `named` under "eos_token" and "pad_token", else the first of a usual name."""
        named = named or {}
        eos, pad = (
            next((i for token in (named.get(role, ""), *usual) if (i := id_of(token)) is not None), None)
            for role, usual in (("eos_token", END_OF_TEXT), ("pad_token", PAD))
        )
        return cls(eos, eos if pad is None else pad)


def likely_tokens(tokenizer: Tokenizer, like: str = "") -> list[str]:
    """Tokens that may be meant: the nearest by name first, or with nothing to be like, those marked as special, in order."""
    special = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items()) if token.special]
    return get_close_matches(like, tokenizer.get_vocab(), 3) if like else special[:LIKELY_SHOWN]


def declared_tokens(source: str) -> dict[str, str]:
    """The names of "eos_token" and "pad_token", where the files beside a tokenizer (as `load_tokenizer` takes it) give them.

    Raises EngramError when one of the files is damaged.
    """
    declared: dict[str, str] = {}
    for file in _files_beside(source):
        content = read_json(file, MAX_BYTES)
        found = {role: _token(content, role) for role in ("eos_token", "pad_token")}
        declared = {role: token for role, token in found.items() if token} | declared
    return declared


def _files_beside(source: str) -> list[Path]:
    """Of `FILES`, those that are there: in the folder of the tokenizer, or on the hub or among what was fetched from it."""
    if is_hub_id(source):
        return _hub_files(source)
    path = Path(source)
    if not path.is_dir() and path.name != "tokenizer.json":
        return []  # what lies there is about another file
    folder = path if path.is_dir() else path.parent
    return [folder / name for name in FILES if (folder / name).is_file()]


def _hub_files(identifier: str) -> list[Path]:
    """Those of `FILES` that the hub has, or once it cannot be reached, those that were fetched from it before."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    found, offline = [], False  # a second attempt to reach it would take as long again
    for name in FILES:
        try:
            found.append(Path(hf_hub_download(identifier, name, local_files_only=offline)))
        except LocalEntryNotFoundError:
            offline = True
        except EntryNotFoundError:
            continue
    return found


def _token(content: JsonObject, role: str) -> str:
    """The name of the token that has the role, "" for none."""
    if content.members.get(role) is None:
        return ""
    return content.child(role).text("content") if isinstance(content.value(role), dict) else content.text(role)
