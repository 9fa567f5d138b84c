"""Things that many tests look at and none changes."""

from pathlib import Path

import pytest

from hashing.atomic import write_text
from hashing.corpus import Corpus
from hashing.tokenizer import train_tokenizer
from hashing.vocab import CanonicalVocab
from runtime.presets import preset
from runtime.run import Run
from runtime.trainer import Trainer, with_overrides
from tests.corpora import write_jsonl


@pytest.fixture(scope="session")
def corpus_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "pieces.jsonl")


def build_vocab(run: Run, corpus: Corpus, size: int = 512) -> None:
    tokenizer = train_tokenizer((d.text for d in corpus.documents()), size)
    write_text(run.tokenizer_path, tokenizer.to_str())
    CanonicalVocab.from_tokenizer(tokenizer).save(run.vocab_path)


@pytest.fixture(scope="session")
def vocab_run(tmp_path_factory: pytest.TempPathFactory, corpus_path: Path) -> Run:
    """A run with a vocabulary and nothing else."""
    run = Run(tmp_path_factory.mktemp("vocab") / "run")
    build_vocab(run, Corpus((corpus_path,)))
    return run


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, corpus_path: Path) -> Run:
    """A nano model after thirty steps."""
    run = Run(tmp_path_factory.mktemp("trained") / "run")
    corpus = Corpus((corpus_path,))
    build_vocab(run, corpus)
    for _ in Trainer.start(run, with_overrides(preset("nano"), 30, None), "nano", corpus).steps():
        pass
    return run
