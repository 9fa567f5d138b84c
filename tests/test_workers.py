"""Counts by several processes are those of one, to the byte, and nothing outlives a count that is ended in its midst."""

import gzip
import inspect
import json
import os
import pickle
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hashing.base.errors import EngramError
from hashing.ngrams.counter import NothingToCountError, count_pieces
from hashing.ngrams.counts import NgramCounts
from hashing.ngrams.shares import count_in_processes, count_share
from hashing.ngrams.source import Source
from hashing.text.corpus import MAX_DOCUMENT_CHARS, Corpus
from hashing.text.reading import NoTextsError, Remark
from hashing.text.token_stream import TokenStream
from runtime.run import Run
from tests.commands import ROOM, Done, engram, engram_process, refused
from tests.processes import assert_none_left, workers_of
from tests.vocabularies import raw_vocab

WORDS = inspect.getsource(tarfile).split()
MEMORY = 4 << 30


def text(seed: int, words: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts in every kind of file, one of them longer than a document may be, and token ids in arrays."""
    folder = tmp_path_factory.mktemp("corpora")
    for name in ("texts", "ids"):
        (folder / name).mkdir()
    for number in range(9):
        (folder / "texts" / f"{number}.txt").write_text(text(number, 200 * number))
        np.save(folder / "ids" / f"{number}.npy", np.random.default_rng(number).integers(0, 200, 300))
    (folder / "texts" / "binary.bin").write_bytes(bytes(range(256)))
    with gzip.open(folder / "lines.jsonl.gz", "wt") as lines:
        lines.writelines(json.dumps({"text": text(number, 50)}) + "\n" for number in range(40))
    pq.write_table(pa.table({"text": [text(number, 30) for number in range(70)]}), folder / "rows.parquet")
    (folder / "one.txt").write_text(text(99, 300_000))
    assert (folder / "one.txt").stat().st_size > 2 * MAX_DOCUMENT_CHARS
    rows = [list(range(number, 3 * number)) for number in range(30)]
    pq.write_table(pa.table({"tokens": pa.array(rows, pa.list_(pa.int32()))}), folder / "ids" / "rows.parquet")
    np.save(folder / "two.npy", np.random.default_rng(5).integers(0, 300, (20, 50)))
    return folder


def stats(run: Run, counts: Path, *arguments: object) -> Done:
    return engram("stats", *ROOM, *arguments, "--run", run.folder, "--spec", "tiny", "--counts", counts, "--json")


@pytest.mark.parametrize(
    ("names", "options", "workers"),
    [
        (["texts", "lines.jsonl.gz", "rows.parquet", "two.npy"], (), 2),
        (["one.txt"], (), 2),
        (["ids"], ("--ids-column", "tokens", "--shard", "2/3"), 3),
    ],
    ids=["files of all kinds", "one large file", "a shard of arrays"],
)
def test_counts_are_those_of_one_process(
    vocab_run: Run, corpora: Path, tmp_path: Path, names: list[str], options: tuple[str, ...], workers: int
) -> None:
    paths = [corpora / name for name in names]
    alone = stats(vocab_run, tmp_path / "n.parquet", *paths, *options)
    together = stats(vocab_run, tmp_path / "m.parquet", *paths, *options, "--workers", workers)
    assert (together.returncode, together.stdout) == (0, alone.stdout), together.stderr
    assert together.stderr == alone.stderr.replace("n.parquet", "m.parquet")
    assert (tmp_path / "m.parquet").read_bytes() == (tmp_path / "n.parquet").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"n.parquet", "m.parquet"}


def of_ids(path: Path) -> TokenStream:
    return TokenStream(arrays=(path,))


def no_source() -> Source:
    return Source((), {}, 0, 0, "0" * 64)


def test_more_workers_than_documents(tmp_path: Path) -> None:
    vocab, ids = raw_vocab(50), tmp_path / "ids.npy"
    np.save(ids, np.arange(40).reshape(2, 20))
    count_pieces(of_ids(ids).pieces(), vocab, (2, 3), MEMORY, tmp_path / "n.parquet", no_source())
    totals = count_in_processes(of_ids(ids), vocab, (2, 3), MEMORY, tmp_path / "m.parquet", 3, no_source)
    assert (totals.tokens, totals.documents) == (40, 2)
    assert (tmp_path / "m.parquet").read_bytes() == (tmp_path / "n.parquet").read_bytes()
    assert count_share(of_ids(ids).shares(3)[2], vocab, (2,), MEMORY, tmp_path / "none.parquet") is None
    assert not (tmp_path / "none.parquet").exists()


def test_no_document_at_all(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.zeros(0, np.int32))
    with pytest.raises(NothingToCountError, match="there is nothing to count"):
        count_in_processes(of_ids(tmp_path / "ids.npy"), raw_vocab(5), (2,), MEMORY, tmp_path / "n.parquet", 2, no_source)
    assert [path.name for path in tmp_path.iterdir()] == ["ids.npy"]


def test_a_corpus_that_changes_meanwhile(vocab_run: Run, corpora: Path, tmp_path: Path) -> None:
    """Two workers may have read it on either side of the change. What was read is told as it goes."""
    stream = TokenStream(Corpus((corpora / "texts",)), vocab_run.tokenizer_path)
    sources = iter([no_source(), Source((), {}, 1, 7, "0" * 64)])
    read: list[int] = []
    with pytest.raises(EngramError, match="the corpus changed while it was counted when that was 0 files of 0 bytes"):
        count_in_processes(
            stream, vocab_run.vocab(), (2,), MEMORY, tmp_path / "n.parquet", 2, lambda: next(sources), read.append
        )
    assert sum(read) == stream.file_bytes
    assert list(tmp_path.iterdir()) == []
    assert stream.text
    assert stream.text.reading.count(Remark.NOT_TEXT) == 1


def test_shares_have_every_document_once(tmp_path: Path) -> None:
    """Of many files of one document each, too, and of a share's shares."""
    for number in range(11):
        np.save(tmp_path / f"{number:02}.npy", np.full(3, number))
    whole = TokenStream(arrays=tuple(sorted(tmp_path.iterdir())))
    shares = [[int(piece.token_ids[0]) for piece in share.pieces()] for share in whole.shares(3)]
    assert shares == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]
    (first, second) = whole.shares(3)[1].shares(2)
    assert [[int(piece.token_ids[0]) for piece in share.pieces()] for share in (first, second)] == [[1, 7], [4, 10]]
    assert str(second.shard) == "5/6"


@pytest.mark.parametrize(
    ("last", "options", "code", "message"),
    [
        ("", ("--workers", 0), 2, "invalid value for '--workers': found 0, expected at least 1"),
        ("", ("--workers", 2, "--memory", "1MiB"), 2, "the memory budget is 524,288 bytes, expected at least [0-9,]+\nhint: "),
        ("no text\n", ("--workers", 2), 1, r"lines.jsonl:41 is not JSON: Expecting value at column 1\n"),
    ],
)
def test_what_is_wrong_is_told_as_one_process_tells_it(
    vocab_run: Run, tmp_path: Path, last: str, options: tuple[object, ...], code: int, message: str
) -> None:
    (tmp_path / "lines.jsonl").write_text('{"text": "a text"}\n' * 40 + last)
    done = stats(vocab_run, tmp_path / "n.parquet", tmp_path / "lines.jsonl", *options)
    refused(done, code, message)
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]


def test_an_error_comes_from_another_process_as_it_was() -> None:
    error = NoTextsError(Remark.NO_TEXTS, "there are none", "name some")
    sent = pickle.loads(pickle.dumps(error))
    assert (type(sent), str(sent), sent.hint, sent.remark) == (NoTextsError, "there are none", "name some", Remark.NO_TEXTS)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts that take two processes some seconds to count."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(40):
        (folder / f"{number}.txt").write_text(text(number, 60_000))
    return folder


@pytest.fixture
def counting(vocab_run: Run, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "subprocess.Popen[str]":
    """A count by two processes, both of which have begun."""
    (tmp_path / "out").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    options = ("--run", vocab_run.folder, "--spec", "tiny", "--counts", tmp_path / "out" / "n.parquet")
    command = engram_process("stats", many, *options, "--workers", 2, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("out/ngram-runs-*/[01].parquet.partial"))) < 2:
        assert command.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return command


def interrupt(command: "subprocess.Popen[str]") -> None:
    command.send_signal(signal.SIGINT)


def interrupt_all(command: "subprocess.Popen[str]") -> None:
    os.killpg(command.pid, signal.SIGINT)


def terminate(command: "subprocess.Popen[str]") -> None:
    command.terminate()


def terminate_all(command: "subprocess.Popen[str]") -> None:
    os.killpg(command.pid, signal.SIGTERM)


def kill_a_worker(command: "subprocess.Popen[str]") -> None:
    os.kill(workers_of(command.pid)[1], signal.SIGKILL)


INTERRUPTED = "error: interrupted; nothing half-written was left behind\nhint: the same command counts from the beginning\n"
KILLED = r"error: a process that counted a share was ended by SIGKILL; nothing was written\nhint: where memory ran out, .*\n"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (interrupt, 130, INTERRUPTED),
        (interrupt_all, 130, INTERRUPTED),
        (terminate, 143, INTERRUPTED),
        (terminate_all, 143, INTERRUPTED),
        (kill_a_worker, 1, KILLED),
    ],
)
def test_a_count_that_is_ended_leaves_nothing(
    counting: "subprocess.Popen[str]", tmp_path: Path, end: Callable[["subprocess.Popen[str]"], None], code: int, said: str
) -> None:
    assert len(workers_of(counting.pid)) == 2
    end(counting)
    told = counting.communicate(timeout=60)[1]
    assert counting.returncode == code, told
    assert re.fullmatch(said, told), told
    assert_none_left(counting.pid)
    assert [*(tmp_path / "out").iterdir(), *(tmp_path / "temporary").iterdir()] == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc")
def test_workers_end_with_the_command_and_the_next_count_clears_up(
    counting: "subprocess.Popen[str]", vocab_run: Run, corpora: Path, tmp_path: Path
) -> None:
    counting.kill()
    counting.communicate(timeout=60)
    assert_none_left(counting.pid)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert stats(vocab_run, tmp_path / "out" / "n.parquet", corpora / "one.txt").returncode == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["n.parquet"]
    assert NgramCounts.open(tmp_path / "out" / "n.parquet").totals.documents > 1
