"""Counts know the corpus they are of: the same one is not counted twice, another one is never taken for it."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hashing.ngrams.counts import SOURCE_KEY, NgramCounts
from runtime.run import Run
from tests.commands import Done, document, engram, refused

TEXTS = {"a.txt": "the apple and the pear\n" * 60, "b.txt": "an apple a day keeps the doctor away\n" * 60}


@pytest.fixture
def folder(tmp_path: Path, vocab_run: Run) -> Path:
    """A run with a vocabulary, a small corpus, and the counts of it."""
    shutil.copytree(vocab_run.folder, tmp_path / "run")
    (tmp_path / "corpus").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "corpus" / name).write_text(text)
    done = stats(tmp_path, "corpus")
    assert done.returncode == 0, done.stderr
    assert "counted" in done.stderr
    return tmp_path


def stats(folder: Path, *arguments: object) -> Done:
    return engram("stats", *arguments, "--run", "run", "--spec", "tiny", "--json", cwd=folder)


def test_the_same_corpus_is_not_counted_again(folder: Path) -> None:
    before = (folder / "run" / "ngrams.parquet").stat().st_mtime_ns
    plain = stats(folder)
    for again in (stats(folder, "corpus"), stats(folder, folder / "corpus"), stats(folder, "corpus/../corpus")):
        assert (again.returncode, again.stdout) == (0, plain.stdout)
        assert "is as it was counted into" in again.stderr
    sized = stats(folder, "corpus", "--base", "100,2000")
    assert '"base": 2000' in sized.stdout
    assert (folder / "run" / "ngrams.parquet").stat().st_mtime_ns == before
    assert stats(folder, "corpus", "--force").returncode == 0
    assert (folder / "run" / "ngrams.parquet").stat().st_mtime_ns > before


def grow(folder: Path) -> None:
    (folder / "corpus" / "a.txt").write_text("pears")


def touch(folder: Path) -> None:
    os.utime(folder / "corpus" / "a.txt", ns=(1, 1))


def add(folder: Path) -> None:
    (folder / "corpus" / "c.txt").write_text("plums")


def retokenise(folder: Path) -> None:
    path = folder / "run" / "tokenizer.json"
    path.write_text(path.read_text() + "\n")


def save_ids(folder: Path) -> None:
    np.save(folder / "ids.npy", np.arange(9))


def nothing(folder: Path) -> None:
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("change", "arguments", "difference"),
    [
        (grow, ["corpus"], r"when that was 2 files of 3,600 bytes"),
        (add, ["corpus"], r"when that was 2 files"),
        (touch, ["corpus"], "before a file of it or the tokenizer was changed"),
        (retokenise, ["corpus"], "before a file of it or the tokenizer was changed"),
        (nothing, ["corpus/a.txt"], r"from \S*/corpus"),
        (nothing, ["corpus", "--text-key", "body"], "with --text-key text"),
        (nothing, ["corpus", "--shard", "1/2"], "with --shard 1/1"),
        (save_ids, ["ids.npy"], r"from \S*/corpus"),
    ],
)
def test_another_corpus_is_refused(folder: Path, change: Callable[[Path], None], arguments: list[str], difference: str) -> None:
    change(folder)
    counts = (folder / "run" / "ngrams.parquet").read_bytes()
    done = stats(folder, *arguments)
    refused(done, 1, f"ngrams.parquet is already there and would be overwritten; it was counted {difference}")
    assert re.search("hint: --force counts again and replaces it, --counts FILE keeps both\n", done.stderr)
    assert (folder / "run" / "ngrams.parquet").read_bytes() == counts


def test_counts_that_do_not_say_of_what_are_refused(folder: Path) -> None:
    """Those of an older version, and those that were merged."""
    path = folder / "run" / "ngrams.parquet"
    table = pq.read_table(path)
    metadata = {key: value for key, value in table.schema.metadata.items() if key != SOURCE_KEY.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert NgramCounts.open(path).source is None
    refused(stats(folder, "corpus"), 1, "already there and would be overwritten[.]\nhint: pass --force")
    assert document("stats", "--run", "run", "--spec", "tiny", cwd=folder)["totals"]["documents"] == 15


def test_a_source_that_was_damaged(folder: Path) -> None:
    path = folder / "run" / "ngrams.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, SOURCE_KEY.encode(): b'{"paths": [3]}'}), path)
    refused(stats(folder, "corpus"), 1, "ngrams.parquet is damaged: its metadata has other keys than expected")
