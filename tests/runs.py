"""Runs at toy size."""

from hashing.base.atomic import write_text
from hashing.text.corpus import Corpus
from hashing.text.tokenizer import train_tokenizer
from hashing.vocab import CanonicalVocab
from runtime.run import Run


def build_vocab(run: Run, corpus: Corpus, size: int = 512) -> None:
    """Gives a run a tokenizer that is trained on the corpus, and its canonical vocabulary."""
    tokenizer = train_tokenizer((d.text for d in corpus.documents()), size)
    write_text(run.tokenizer_path, tokenizer.to_str())
    CanonicalVocab.from_tokenizer(tokenizer).save(run.vocab_path)
