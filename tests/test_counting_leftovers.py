"""What a killed count leaves behind, what two counts do to each other, and what a count may not wait for."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hashing.base.atomic import atomic_path
from hashing.base.errors import EngramError
from hashing.ngrams.counter import count_pieces
from hashing.ngrams.counts import NgramCounts
from hashing.ngrams.scratch import Scratch
from hashing.rule import IDENTITY
from hashing.text.corpus import Corpus
from hashing.text.token_stream import Piece, array_files, array_pieces
from hashing.vocab import CanonicalVocab


def small_vocab(size: int) -> CanonicalVocab:
    names = ("",) * size
    return CanonicalVocab(names, names, np.arange(size, dtype=np.int32), names, IDENTITY.name)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from hashing.ngrams.counter import NgramCounter
from hashing.rule import IDENTITY
from hashing.vocab import CanonicalVocab

names = ("a", "b", "c")
vocab = CanonicalVocab(names, names, np.arange(3, dtype=np.int32), names, IDENTITY.name)
counter = NgramCounter(vocab, (2,), 1000, Path(sys.argv[1]), longest_document=500)
for _ in range(5):
    counter.add(np.arange(500) % 3)
assert counter.spills
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_count_left_goes_with_the_next(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("ngram-runs-")
    with Scratch(tmp_path) as scratch:
        assert not left.exists()
        scratch.path("run").write_text("a run")
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_count_needs_stays(tmp_path: Path) -> None:
    with Scratch(tmp_path) as first:
        first.path("run").write_text("a run")
        with Scratch(tmp_path) as second:
            second.path("run").write_text("another run")
            assert first.path("run") != second.path("run")
        assert first.path("run").read_text() == "a run"
    assert list(tmp_path.iterdir()) == []


def test_a_count_that_fits_in_memory_makes_no_folder(tmp_path: Path) -> None:
    with Scratch(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    message = r"pipe\.npy is a pipe, socket or device, expected a file or a folder"
    with pytest.raises(EngramError, match=message):
        list(Corpus((tmp_path / "pipe.npy",)).documents())
    with pytest.raises(EngramError, match=message):
        list(array_pieces(tmp_path / "pipe.npy", ""))


def test_a_folder_of_ids_is_its_files(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    pq.write_table(pa.table({"ids": [[1, 2]]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"ids": [[3]]}), tmp_path / "more" / "a.parquet")
    np.save(tmp_path / "a.npy", np.array([4, 5]))
    (tmp_path / "notes.txt").write_text("not ids")
    os.mkfifo(tmp_path / "pipe.npy")
    files = array_files(tmp_path, "ids")
    assert [str(file.relative_to(tmp_path)) for file in files] == ["a.npy", "b.parquet", "more/a.parquet"]
    assert [piece.token_ids.tolist() for file in files for piece in array_pieces(file, "ids")] == [[4, 5], [1, 2], [3]]
    assert array_files(tmp_path, "") == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngramError, match=r"holds no token ids: there is no \.npy or \.parquet file in it"):
        array_files(tmp_path / "empty", "ids")


def test_two_counts_into_one_file(tmp_path: Path) -> None:
    """The second is refused before it reads anything, and neither loses what the first has written."""
    vocab, path, read = small_vocab(5), tmp_path / "n.parquet", []

    def pieces() -> Iterator[Piece]:
        read.append("a document")
        yield Piece(np.array([1, 2, 3, 1, 2]))

    with atomic_path(path) as partial:
        partial.write_text("the first, still writing")
        with pytest.raises(EngramError, match=r"n\.parquet is being written by another process"):
            count_pieces(pieces(), vocab, (2,), 4 << 30, path)
        assert partial.read_text() == "the first, still writing"
    assert not read
    count_pieces(pieces(), vocab, (2,), 4 << 30, path)
    assert NgramCounts.open(path).totals.tokens == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["n.parquet"]
