"""Runs at toy size."""

import hashlib

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


def content(run: Run) -> dict[str, str]:
    """The run's files with their digests; the clock's readings are not compared, and a writer's traces are no content."""
    names = [path for path in sorted(run.folder.rglob("*")) if path.is_file()]
    shown = [path for path in names if path.name not in {".writer", "progress.json"} and ".partial" not in str(path)]
    return {str(path.relative_to(run.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shown}
