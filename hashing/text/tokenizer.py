"""Tokenizers: loading one that exists, training one on a corpus."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hashing.base.errors import EngramError
from hashing.base.regular_file import regular_size

END_OF_TEXT = ("<|endoftext|>", "<｜end▁of▁sentence｜>", "<|end_of_text|>", "<|im_end|>", "<eos>", "</s>", "[SEP]")
ENCODED_AT_ONCE = 64  # documents


def load_tokenizer(source: str) -> Tokenizer:
    """Reads a `tokenizer.json`, a folder holding one, or downloads one by its hub id.

    Raises EngramError when the file is missing or broken, or the hub does not answer.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.exists():
        return _read_tokenizer(path)
    if source.count("/") > 1 or source.endswith(".json") or source.startswith((".", "/", "~")) or Path(source).is_dir():
        raise EngramError(
            f"no such file: {path}", hint="name a tokenizer.json, a folder holding one, or a hub id such as owner/name"
        )
    return _fetch_tokenizer(source)


def _read_tokenizer(path: Path) -> Tokenizer:
    regular_size(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise EngramError(f"{path} is not a tokenizer: it is not UTF-8 text") from e
    try:
        return Tokenizer.from_str(text)
    except Exception as e:  # the library raises the bare class for every malformed file
        raise EngramError(f"{path} is not a tokenizer.json that the tokenizers library reads: {e}") from e


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
        special_tokens=[END_OF_TEXT[0]],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """The id that ends a document. Raises EngramError when the tokenizer has none of the usual ones."""
    for token in END_OF_TEXT:
        if (token_id := tokenizer.token_to_id(token)) is not None:
            return int(token_id)
    raise EngramError(f"the tokenizer has no end-of-text token; looked for {', '.join(END_OF_TEXT)}")


def encode_documents(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    """Token ids of each document in order, its end-of-text token last."""
    end = end_of_text_id(tokenizer)
    source = iter(texts)
    while batch := list(islice(source, ENCODED_AT_ONCE)):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            yield [*encoding.ids, end]
