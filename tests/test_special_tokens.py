"""End-of-text and pad: found where tokenizers say them, kept in the vocabulary, and used wherever a document ends."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, pre_tokenizers

from hashing.base.errors import EngramError
from hashing.named_specs import named_spec
from hashing.text.corpus import Corpus
from hashing.text.encoding import encode_documents
from hashing.text.round_trip import loses_characters, lost_in_round_trip
from hashing.text.special_tokens import SpecialTokens, declared_tokens
from hashing.text.token_stream import text_pieces
from hashing.text.tokenizer import train_tokenizer
from hashing.vocab import CanonicalVocab
from tests.commands import ROOT
from tests.small_tokenizers import TEXTS, byte_level, unigram, wordpiece


def found(tokenizer: Tokenizer, named: dict[str, str] | None = None) -> tuple[str | None, str | None]:
    special = SpecialTokens.find(tokenizer.token_to_id, named)
    return tuple(None if i is None else tokenizer.id_to_token(i) for i in (special.eos_id, special.pad_id))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("tokenizer", "named", "expected"),
    [
        (wordpiece("[PAD]", "[SEP]"), {}, ("[SEP]", "[PAD]")),
        (wordpiece("[PAD]", "[SEP]"), {"eos_token": "apple"}, ("apple", "[PAD]")),
        (unigram("<pad>", "</s>"), {}, ("</s>", "<pad>")),
        (unigram("</s>"), {}, ("</s>", "</s>")),
        (unigram("<EOT>"), {}, ("<EOT>", "<EOT>")),
        (unigram("<|eot_id|>", "<|end_of_text|>"), {}, ("<|end_of_text|>", "<|end_of_text|>")),
        (unigram("<|end|>"), {"eos_token": "<none>", "pad_token": "<|end|>"}, ("<|end|>", "<|end|>")),
        (unigram("<pad>"), {}, (None, "<pad>")),
        (unigram(), {}, (None, None)),
        (byte_level("<fim>"), {}, ("<|endoftext|>", "<|endoftext|>")),
        (byte_level("<fim>"), {"pad_token": "<fim>"}, ("<|endoftext|>", "<fim>")),
    ],
)
def test_by_what_is_named_and_by_usual_names(
    tokenizer: Tokenizer, named: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    assert found(tokenizer, named) == expected


def test_deepseeks_own(deepseek_v4: Tokenizer, vocab_v4: CanonicalVocab) -> None:
    assert found(deepseek_v4) == ("<｜end▁of▁sentence｜>", "<｜▁pad▁｜>")
    assert vocab_v4.pad_token_id == named_spec("engram-demo").pad_token_id == 2


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {}),
        ({"tokenizer_config.json": {"eos_token": "<a>", "pad_token": None}}, {"eos_token": "<a>"}),
        ({"tokenizer_config.json": {"eos_token": {"content": "<a>", "lstrip": False}}}, {"eos_token": "<a>"}),
        (
            {
                "special_tokens_map.json": {"eos_token": "<b>", "pad_token": "<c>"},
                "tokenizer_config.json": {"eos_token": "<a>"},
            },
            {"eos_token": "<a>", "pad_token": "<c>"},
        ),
    ],
)
def test_the_files_beside_a_tokenizer(tmp_path: Path, files: dict[str, Any], expected: dict[str, str]) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    byte_level().save(str(tmp_path / "other.json"))
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    for source in (tmp_path, tmp_path / "tokenizer.json"):
        assert declared_tokens(str(source)) == expected
    assert declared_tokens(str(tmp_path / "other.json")) == {}


def test_a_damaged_file_beside_a_tokenizer(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": 3}')
    with pytest.raises(EngramError, match=r"special_tokens_map\.json: eos_token is 3, expected a text"):
        declared_tokens(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(EngramError, match=r"tokenizer_config\.json is not JSON"):
        declared_tokens(str(tmp_path))


def test_a_tokenizer_of_the_hub_brings_them_along(tmp_path: Path) -> None:
    """From what the hub's own library keeps of an earlier download, with no network."""
    snapshot = tmp_path / "hub" / "models--own--er" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    byte_level("<stop>").save(str(snapshot / "tokenizer.json"))
    (snapshot / "special_tokens_map.json").write_text('{"eos_token": {"content": "<stop>"}}')
    script = "from hashing.text.special_tokens import declared_tokens as d; print(d('own/er'), d('own/other'))"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "{'eos_token': '<stop>'} {}\n"


def test_the_vocabulary_keeps_them(tmp_path: Path) -> None:
    tokenizer, path = byte_level("<stop>", "<fill>"), tmp_path / "vocab.parquet"
    stop, fill = tokenizer.token_to_id("<stop>"), tokenizer.token_to_id("<fill>")
    vocab = CanonicalVocab.from_tokenizer(tokenizer, special=SpecialTokens(stop, fill))
    vocab.save(path)
    again = CanonicalVocab.load(path)
    assert (again.eos_token_id, again.pad_token_id, again.end_of_text_id) == (stop, fill, stop)
    assert again.fingerprint == CanonicalVocab.from_tokenizer(tokenizer).fingerprint  # no address depends on them


def test_a_vocabulary_from_before_they_were_kept(tmp_path: Path) -> None:
    for tokenizer, expected in ((wordpiece("[PAD]", "[SEP]"), (2, 1)), (unigram(), (None, None))):
        path = tmp_path / "vocab.parquet"
        vocab = CanonicalVocab.from_tokenizer(tokenizer)
        vocab.save(path)
        metadata = {"engram.rule": vocab.rule, "engram.fingerprint": vocab.fingerprint}
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
        older = CanonicalVocab.load(path)
        assert (older.eos_token_id, older.pad_token_id) == expected
    with pytest.raises(EngramError, match="no end-of-text token, as") as refusal:
        _ = older.end_of_text_id
    assert "build-vocab --eos" in refusal.value.hint


@pytest.mark.parametrize(("digits", "message"), [("x", "expected token ids"), ("-1", "expected"), ("999", "outside the vocab")])
def test_special_tokens_in_a_file_that_are_none(tmp_path: Path, digits: str, message: str) -> None:
    path = tmp_path / "vocab.parquet"
    vocab = CanonicalVocab.from_tokenizer(byte_level())
    vocab.save(path)
    metadata = {"engram.rule": vocab.rule, "engram.fingerprint": vocab.fingerprint, "engram.eos": digits}
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    with pytest.raises(EngramError, match=message):
        CanonicalVocab.load(path)


def test_documents_end_with_the_chosen_token(tmp_path: Path) -> None:
    tokenizer = byte_level("<stop>")
    stop = tokenizer.token_to_id("<stop>")
    assert [ids[-1] for ids in encode_documents(tokenizer, stop, TEXTS[:3])] == [stop] * 3
    (tmp_path / "a.txt").write_text("an apple\n" * 100)
    pieces = list(text_pieces(Corpus((tmp_path,)), tokenizer, stop))
    assert len(pieces) > 1
    assert {int(piece.token_ids[-1]) for piece in pieces} == {stop}


def test_presets_pad_with_the_pad() -> None:
    tokenizer = wordpiece("[CLS]", "[PAD]", "[SEP]")
    vocab = CanonicalVocab.from_tokenizer(tokenizer)
    assert vocab.pad_token_id == tokenizer.token_to_id("[PAD]") == 2
    assert named_spec("tiny").spec(vocab).pad_id == vocab.mapping[2]
    # The tokenizer of the default run, of which published figures are: its one special token has always been both.
    vocab = CanonicalVocab.from_tokenizer(train_tokenizer(TEXTS, 300))
    assert (vocab.tokens[0], vocab.eos_token_id, vocab.pad_token_id) == ("<|endoftext|>", 0, 0)
    assert named_spec("tiny").spec(vocab).pad_id == vocab.mapping[0] == 0
    bare = CanonicalVocab(("a", "b"), ("a", "b"), np.array([0, 1], np.int32), ("a", "b"))
    assert named_spec("tiny").spec(bare).pad_id == named_spec("tiny").bare_spec().pad_id == 0


@pytest.mark.parametrize(
    ("tokenizer", "loses"),
    [(wordpiece("[SEP]"), True), (unigram("</s>"), True), (byte_level(), False)],
    ids=["wordpiece", "unigram", "byte-level"],
)
def test_a_tokenizer_that_loses_characters(tokenizer: Tokenizer, loses: bool) -> None:
    assert loses_characters(tokenizer) == loses
    lost = lost_in_round_trip(tokenizer, ["Apple\n\n  pie"])
    assert (lost is not None) == loses
    if lost:
        assert lost[0] == "Apple\n\n  pie" != lost[1]


def test_deepseeks_tokenizers_and_a_leading_space_lose_nothing(deepseek_v4: Tokenizer) -> None:
    assert not loses_characters(deepseek_v4)
    prefixed = byte_level()
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert prefixed.decode(prefixed.encode("apple").ids) == " apple"
    assert not loses_characters(prefixed)
