"""Tokenizers: loading one that exists, training one on a corpus."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hashing.base.errors import EngramError
from hashing.base.regular_file import regular_size

TRAINED_END_OF_TEXT = "<|endoftext|>"
FROM_TEXT = "to train a tokenizer on a text: engram build-vocab --corpus FILE"


def load_tokenizer(source: str) -> Tokenizer:
    """Reads a `tokenizer.json`, a folder holding one, or downloads one by its hub id.

    Raises EngramError when the file is missing or broken, or the hub does not answer.
    """
    if is_hub_id(source):
        return _fetch_tokenizer(source)
    path = Path(source)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.exists():
        raise EngramError(
            f"no such file: {path}",
            hint=f"name a tokenizer.json, a folder holding one, or a hub id such as owner/name; {FROM_TEXT}",
        )
    return _read_tokenizer(path)


def is_hub_id(source: str) -> bool:
    """Whether a tokenizer is to be had from the hub: nothing here is called so, and it does not look like a path."""
    looks_like_path = source.count("/") > 1 or source.endswith(".json") or source.startswith((".", "/", "~"))
    return not looks_like_path and not Path(source).exists()


def _read_tokenizer(path: Path) -> Tokenizer:
    regular_size(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise EngramError(f"{path} is not a tokenizer: it is not UTF-8 text", hint=FROM_TEXT) from e
    try:
        return Tokenizer.from_str(text)
    except Exception as e:  # the library raises the bare class for every malformed file
        raise EngramError(f"{path} is not a tokenizer.json that the tokenizers library reads: {e}", hint=FROM_TEXT) from e


def _fetch_tokenizer(identifier: str) -> Tokenizer:
    try:
        return Tokenizer.from_pretrained(identifier)
    except Exception as e:  # the library raises the bare class for every failed download
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise EngramError(
            f'no file or folder is called "{identifier}", and the hub did not give a tokenizer of that name: {reason}',
            hint="without a network, name a tokenizer.json or a folder holding one",
        ) from e


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """A byte-level BPE of at most `size` tokens; id 0 is the end-of-text token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[TRAINED_END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
