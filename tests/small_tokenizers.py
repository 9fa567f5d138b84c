"""Small real tokenizers of three families, trained on a few words."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from hashing.text.tokenizer import train_tokenizer

TEXTS = ["The apple, an Apple and  APPLES\n", "Äpfel sind Früchte\n\tund façade", "apple pie (naïve)"] * 20


def wordpiece(*special: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]", *special], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def unigram(*special: str) -> Tokenizer:
    """Its normaliser folds white space, as SentencePiece's does."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<unk>", *special], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def byte_level(*special: str) -> Tokenizer:
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.add_special_tokens(list(special))
    return tokenizer
