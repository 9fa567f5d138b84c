"""The canonical vocabulary against the published counts, and its file against everything that can be wrong with it."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hashing.base.errors import EngramError, UsageError
from hashing.rule import ENGRAM, IDENTITY, Rule, load_rule
from hashing.text.tokenizer import load_tokenizer
from hashing.vocab import CanonicalVocab
from hashing.vocab_difference import difference

GOLDEN = json.loads((Path(__file__).parent / "golden" / "canonical_vocab.json").read_text())


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v4"])
def test_published_vocabularies(name: str, request: pytest.FixtureRequest) -> None:
    expected: dict[str, Any] = GOLDEN[name]
    vocab: CanonicalVocab = request.getfixturevalue(f"vocab_{name[-2:]}")
    assert (len(vocab.tokens), vocab.size) == (expected["tokens"], expected["canonical"])
    assert vocab.reduction_percent == pytest.approx(expected["reduction_percent"], abs=1e-4)
    assert vocab.mapping_sha256 == expected["mapping_int32_le_sha256"]
    classes = [(c["key"], c["size"]) for c in expected["top_classes"]]
    assert classes
    assert vocab.largest_classes(len(classes)) == classes
    spots = {int(token): canonical for token, canonical in expected["spot"].items()}
    assert vocab.canonical(np.array(list(spots))).tolist() == list(spots.values())


def test_token_ids_of_any_shape_and_kind(raw_vocab: CanonicalVocab) -> None:
    ids = np.random.default_rng(3).integers(-3, 50, (4, 6))
    vocab = CanonicalVocab(raw_vocab.tokens[:50], raw_vocab.texts[:50], np.arange(50, dtype=np.int32) // 2, raw_vocab.keys[:25])
    for given in (ids, ids.astype(np.int32), np.asfortranarray(ids), ids[::2, ::-3], ids[0, 0], ids[:0]):
        found = vocab.canonical(given)
        assert (found.shape, found.dtype) == (np.shape(given), np.int64)
        assert np.array_equal(found, np.where(given < 0, given, given // 2))
    ids[2, 3] = 50
    with pytest.raises(EngramError, match="token id 50 is outside the vocabulary of 50 tokens"):
        vocab.canonical(ids)


def words_tokenizer(kind: str) -> Tokenizer:
    """A real tokenizer of a family other than byte-level BPE, trained on a few words."""
    texts = ["The apple, an Apple and APPLES", "Äpfel sind Früchte", "apple pie\n\tand  café"] * 20
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]"], show_progress=False)
    else:
        unigram = kind == "unigram"
        tokenizer = Tokenizer(models.Unigram() if unigram else models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer_of: Any = trainers.UnigramTrainer if unigram else trainers.BpeTrainer
        options = {"unk_token": "<unk>"} if unigram else {}
        trainer = trainer_of(vocab_size=120, special_tokens=["<unk>"], show_progress=False, **options)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece bpe", "unigram"])
def test_every_family_of_tokenizers(kind: str, tmp_path: Path) -> None:
    tokenizer = words_tokenizer(kind)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    vocab = CanonicalVocab.from_tokenizer(load_tokenizer(str(path)))
    assert len(vocab.tokens) == tokenizer.get_vocab_size()
    for token_id, text in enumerate(vocab.texts):
        assert text == tokenizer.decode([token_id], skip_special_tokens=False)
        # Stated of the normaliser's effect, not by it: no class mixes words, and none keeps case or accents apart.
        key = vocab.keys[vocab.mapping[token_id]]
        plain = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
        bare = re.sub(r"\s+", " ", "".join(c for c in plain if unicodedata.category(c) != "Mn").lower())
        assert key == (bare.strip() or (" " if text else ""))
    assert vocab.size < len(vocab.tokens)


def test_ids_with_gaps_and_an_id_of_two_tokens() -> None:
    """Ids may go beyond the number of tokens, and one may stand for two of them; the library decides for which."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 3, "c": 7}, unk_token="a"))
    vocab = CanonicalVocab.from_tokenizer(tokenizer)
    assert vocab.tokens == ("a", "", "", "b", "", "", "", "c")
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 1}, unk_token="a"))
    vocab = CanonicalVocab.from_tokenizer(tokenizer)
    assert vocab.tokens[0] == "a"
    assert vocab.tokens[1] == tokenizer.id_to_token(1)
    with pytest.raises(EngramError, match="the tokenizer has no tokens"):
        CanonicalVocab.from_tokenizer(Tokenizer(models.BPE()))


def test_identity_keeps_every_token_apart(deepseek_v4: Tokenizer) -> None:
    vocab = CanonicalVocab.from_tokenizer(deepseek_v4, IDENTITY)
    assert vocab.size == len(vocab.tokens)
    assert np.array_equal(vocab.mapping, np.arange(vocab.size))


def test_a_rule_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "rule.json"
    path.write_text('{"type": "Lowercase"}')
    tokenizer = words_tokenizer("wordpiece")
    vocab = CanonicalVocab.from_tokenizer(tokenizer, load_rule(str(path)))
    assert {vocab.keys[i] for i in vocab.mapping} == {text.lower() for text in vocab.texts}
    assert vocab.fingerprint != CanonicalVocab.from_tokenizer(tokenizer).fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ('{"type": "Shout"}', "is not a normaliser that"), ("null", "it holds null"), ("[1]", "is not a")],
)
def test_a_file_that_is_no_rule(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rule.json"
    path.write_text(content)
    with pytest.raises(EngramError, match=message):
        load_rule(str(path))
    with pytest.raises(UsageError, match='no rule and no file is called "none"'):
        load_rule("none")


@pytest.mark.parametrize("rule", [ENGRAM, IDENTITY])
def test_a_vocabulary_survives_its_file(tmp_path: Path, rule: Rule) -> None:
    vocab = CanonicalVocab.from_tokenizer(words_tokenizer("unigram"), rule)
    vocab.save(tmp_path / "vocab.parquet")
    again = CanonicalVocab.load(tmp_path / "vocab.parquet")
    assert (again.fingerprint, again.rule, again.keys, again.texts) == (vocab.fingerprint, rule.name, vocab.keys, vocab.texts)
    content = (tmp_path / "vocab.parquet").read_bytes()
    vocab.save(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == content
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(EngramError, match="cannot be read as Parquet"):
        CanonicalVocab.load(tmp_path / "cut.parquet")


def test_a_file_that_does_not_name_its_rule_is_no_vocabulary(tmp_path: Path) -> None:
    vocab, path = CanonicalVocab.from_tokenizer(words_tokenizer("unigram")), tmp_path / "vocab.parquet"
    vocab.save(path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"engram.fingerprint": vocab.fingerprint}), path)
    with pytest.raises(EngramError, match="is not a canonical vocabulary"):
        CanonicalVocab.load(path)


def test_the_difference_between_the_two_deepseek_vocabularies(vocab_v3: CanonicalVocab, vocab_v4: CanonicalVocab) -> None:
    found = difference(vocab_v3, vocab_v4)
    assert found.tokens == (128_815, 129_280)
    assert found.canonical == (98_627, 99_092)
    for token_id in found.other_tokens:
        assert token_id >= 128_815 or vocab_v3.tokens[token_id] != vocab_v4.tokens[token_id]
    assert difference(vocab_v3, vocab_v3).first_moved is None
    assert difference(vocab_v3, vocab_v3).changed_keys == ()


def test_classes_of_a_word(vocab_v4: CanonicalVocab, deepseek_v4: Tokenizer) -> None:
    (apple,) = deepseek_v4.encode("Apple", add_special_tokens=False).ids
    texts = {vocab_v4.texts[i] for i in vocab_v4.members(int(vocab_v4.mapping[apple]))}
    assert {"Apple", " apple", " Apple", "apple"} <= texts
    assert {text.strip().lower() for text in texts} == {"apple"}
