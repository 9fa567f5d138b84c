"""A run has one writer; those who read it wait for the moment in which files are moved, and never see half of a change."""

import fcntl
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtime.replacement import WriterLock, locked, replacing
from runtime.run import Run
from runtime.train.trainer import Trainer
from tests.commands import engram, refused


@pytest.fixture
def own(tmp_path: Path, trained_run: Run) -> Run:
    return Run(shutil.copytree(trained_run.folder, tmp_path / "run"))


def test_a_second_training_is_refused_while_the_first_lives(own: Run, corpus_path: Path) -> None:
    first = Trainer.resume(own, steps=60)
    resumed = engram("train", "--resume", "--run", own.folder)
    refused(resumed, 1, "is being written by another process")
    refused(engram("train", "--force", "--preset", "nano", "--corpus", corpus_path, "--run", own.folder), 1, "is being written")
    refused(
        engram("build-vocab", "--force", "--discard-training", "--run", own.folder, "--corpus", corpus_path), 1, "is being w"
    )
    steps = [report.step for report in first.steps()]
    assert steps == list(range(31, 61))
    assert engram("train", "--resume", "--run", own.folder).returncode == 0


def test_a_writer_that_died_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os\nfrom pathlib import Path\nfrom runtime.replacement import WriterLock\n"
        f"lock = WriterLock(Path({str(tmp_path)!r}))\nos._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    WriterLock(tmp_path).release()


def test_a_writer_waits_for_readers_and_readers_for_it(own: Run) -> None:
    old = own.config_path.read_bytes()
    order: list[str] = []

    def replace() -> None:
        with replacing(own.folder) as fresh:
            (fresh / "corpus.json").write_text("new")
        order.append("replaced")

    with own.reading():
        writer = threading.Thread(target=replace)
        writer.start()
        writer.join(0.2)
        order.append("read")
        assert own.config_path.read_bytes() == old
    writer.join()
    assert order == ["read", "replaced"]
    assert own.corpus_path.read_text() == "new"


def test_what_a_killed_writer_left_to_be_moved_is_moved_by_the_next_reader(own: Run) -> None:
    fresh = own.folder / "next"
    fresh.mkdir()
    (fresh / "tokenizer.json").write_bytes(own.tokenizer_path.read_bytes())
    (fresh / "vocab.parquet").write_bytes(own.vocab_path.read_bytes())
    again = Run(own.folder)
    assert again.vocab_path.exists()
    assert not fresh.exists()
    assert not any(path.exists() for path in (again.config_path, again.model_path, again.tables_path, again.train_folder))


def test_a_failed_replacement_changes_nothing(own: Run) -> None:
    old = own.vocab_path.read_bytes()
    with pytest.raises(UnicodeEncodeError), replacing(own.folder) as fresh:
        (fresh / "vocab.parquet").write_text("half\ud800", encoding="utf-8")
    assert own.vocab_path.read_bytes() == old
    assert own.model_path.exists()


def test_the_locks_of_two_processes_meet(tmp_path: Path) -> None:
    code = f"from runtime.replacement import WriterLock\nfrom pathlib import Path\nWriterLock(Path({str(tmp_path)!r}))"
    with WriterLock(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "is being written by another process" in done.stderr
    with locked(tmp_path, fcntl.LOCK_EX):
        pass
