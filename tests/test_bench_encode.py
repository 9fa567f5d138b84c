"""`engram bench encode` has every figure, and the memory of encoding does not grow with the corpus."""

import shutil
from pathlib import Path

import pytest

from engram_cli.bench.encode_speed import EncodeWays, measure, peak_bytes
from hashing.text.corpus import Corpus
from runtime.run import Run
from tests.commands import document, engram, refused


def test_the_measurement_has_every_figure(tmp_path: Path, trained_run: Run, corpus_path: Path) -> None:
    corpus = Corpus((corpus_path,))
    speed = measure(corpus, trained_run.tokenizer(), tmp_path, rounds=1)
    texts = [d.text for d in corpus.documents()]
    assert (speed.documents, speed.text_bytes) == (len(texts), sum(len(text.encode()) for text in texts))
    assert speed.times_tokenizer == pytest.approx(speed.megabytes_per_sec("engram") / speed.megabytes_per_sec("tokenizer"))
    kept = (trained_run.train_folder / "tokens").iterdir()
    assert all(file.read_bytes() == (tmp_path / "tokens" / file.name).read_bytes() for file in kept), "what a training reads"
    assert 4 * speed.tokens == sum((tmp_path / "tokens" / f"{side}.bin").stat().st_size for side in ("train", "validation"))


def test_the_tokenizer_alone_has_every_text(tmp_path: Path, trained_run: Run, corpus_path: Path) -> None:
    corpus = Corpus((corpus_path,))
    ways = EncodeWays(corpus, trained_run.tokenizer(), tmp_path)
    ways.read()
    assert [text for batch in ways.batches for text in batch] == [d.text for d in corpus.documents()]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, trained_run: Run, corpus_path: Path) -> None:
    """Of 1.5 M tokens at once, the tokenizer's own bookkeeping would take 250 MB."""
    (tmp_path / "corpus").mkdir()
    for number in range(16):
        shutil.copy(corpus_path, tmp_path / "corpus" / f"{number}.jsonl")
    found = peak_bytes(Corpus((tmp_path / "corpus",)), trained_run.tokenizer_path, tmp_path)
    assert sum(file.stat().st_size for file in (tmp_path / "tokens").glob("*.bin")) > 4 * 1_500_000
    assert found < 100e6


def test_the_command_prints_one_document(tmp_path: Path, trained_run: Run, corpus_path: Path) -> None:
    found = document("bench", "encode", "--corpus", corpus_path, "--run", trained_run.folder, "--folder", tmp_path)
    assert set(found) == {
        "cores",
        "documents",
        "text_bytes",
        "tokens",
        "megabytes_per_sec",
        "times_tokenizer",
        "peak_bytes",
    }
    assert set(found["megabytes_per_sec"]) == {"tokenizer", "engram"}
    assert not list(tmp_path.iterdir())
    done = engram("bench", "encode", "--corpus", corpus_path, "--run", trained_run.folder, "--folder", tmp_path)
    assert (done.returncode, "MB/s" in done.stdout) == (0, True)


def test_a_run_without_a_tokenizer(tmp_path: Path) -> None:
    refused(engram("bench", "encode", "--run", tmp_path / "none", "--folder", tmp_path), 1, "has no tokenizer.json")
