"""A corpus on disk as token ids: as a plain loop has them, whatever interrupts their writing, and never of two corpora."""

import gzip
import json
import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engram_cli.interrupt import CommandInterruptedError
from engram_cli.main import run as command
from hashing.base.atomic import partial_path, write_text
from hashing.base.cores import CORES
from hashing.base.errors import EngramError
from hashing.text import encoding
from hashing.text.corpus import Corpus
from hashing.text.encoding import AHEAD, PARALLELISM, encode_documents
from hashing.text.tokenizer import train_tokenizer
from hashing.vocab import CanonicalVocab
from runtime import tokens_writer
from runtime.run import Run
from runtime.tokens import SIDES
from runtime.tokens_writer import TokensWriter, encoded_corpus
from tests.commands import engram, largest_file, refused
from tests.folders import assert_identical
from tests.interruptions import Kind, interrupted, operations

END = 0
DOCUMENTS = 1200
KILLS = 12


def texts(count: int = DOCUMENTS, seed: int = 0) -> list[str]:
    moments = random.Random(seed)
    words = ["def", "return", "naïve", "x = 1\n", "Ω", "(self)", "None", "    "]
    return [f"{i} " + " ".join(moments.choices(words, k=moments.randint(1, 60))) for i in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(texts(200), 300)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a small corpus has many batches, commits and words of progress."""
    monkeypatch.setattr(encoding, "BATCH_CHARS", 3000)
    monkeypatch.setattr(tokens_writer, "COMMIT_TOKENS", 4000)
    monkeypatch.setattr(tokens_writer, "TOLD_BYTES", 1000)


def jsonl(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """A folder of every kind of file."""
    folder, lines = tmp_path / "corpus", texts()
    folder.mkdir()
    jsonl(folder / "a.jsonl", lines[:400])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(jsonl(tmp_path / "b", lines[400:600]).read_bytes()))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(jsonl(tmp_path / "c", lines[600:800]).read_bytes()))
    pq.write_table(pa.table({"text": lines[800:1000], "other": [*range(200)]}), folder / "d.parquet")
    (folder / "e.json").write_text(json.dumps(lines[1000:1100]))
    (folder / "f.bin").write_bytes(b"\0" * 999)  # passed over
    (folder / "g.txt").write_text("".join(f"{line}\n" for line in lines[1100:]), encoding="utf-16")
    return Corpus((folder,))


def plain(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> Path:
    """What the format says, written document by document."""
    folder.mkdir()
    ids: dict[str, list[int]] = {side: [] for side in SIDES}
    ends: dict[str, list[int]] = {side: [] for side in SIDES}
    text_bytes = dict.fromkeys(SIDES, 0)
    for document in corpus.documents():
        ids[document.side] += [*tokenizer.encode(document.text, add_special_tokens=False).ids, END]
        ends[document.side].append(len(ids[document.side]))
        text_bytes[document.side] += len(document.text.encode())
    for side in SIDES:
        np.array(ids[side], "<i4").tofile(folder / f"{side}.bin")
        np.array(ends[side], "<i8").tofile(folder / f"{side}.documents.bin")
    counts, documents = ({side: len(found[side]) for side in SIDES} for found in (ids, ends))
    content = {"format": 2, "counts": counts, "documents": documents, "text_bytes": text_bytes}
    (folder / "tokens.json").write_text(json.dumps(content, sort_keys=True))
    return folder


def encode(place: Path, corpus: Corpus, tokenizer: Tokenizer, end_id: int = END) -> Path:
    """Encodes into `place/tokens`."""
    with encoded_corpus(place / "encoded", corpus, tokenizer, end_id) as encoded:
        encoded.place(place / "tokens")
    return place / "tokens"


def stopped(place: Path, corpus: Corpus, tokenizer: Tokenizer, at_share: float = 0.6) -> int:
    """Interrupts an encoding where it has read that share; how many tokens it leaves to go on from."""

    def stop(done_bytes: int, total_bytes: int) -> None:
        if done_bytes > at_share * total_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), encoded_corpus(place / "encoded", corpus, tokenizer, END, stop):
        pass
    return committed(place / "encoded")


def committed(path: Path) -> int:
    """How many tokens there are to go on from."""
    path = partial_path(path) / "written.json"
    return sum(json.loads(path.read_text())["counts"].values()) if path.exists() else 0


def test_the_files_are_those_of_a_plain_loop(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    expected = plain(corpus, tokenizer, tmp_path / "plain")
    assert (expected / "train.bin").stat().st_size > 10 * 4 * 4000, "many commits"
    assert_identical(encode(tmp_path / "ours", corpus, tokenizer), expected)
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["tokens"]


def test_with_validation_files_too(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    named = Corpus(corpus.paths, validation=(corpus.paths[0] / "e.json",))
    expected = plain(named, tokenizer, tmp_path / "plain")
    stopped(tmp_path, named, tokenizer)
    assert_identical(encode(tmp_path, named, tokenizer), expected)


def tell(done: list[int], totals: list[int], done_bytes: int, total_bytes: int) -> None:
    done.append(done_bytes)
    totals.append(total_bytes)


def test_progress_is_the_share_of_the_files_bytes(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Also within a file, compressed or not, and at the end it is whole, what was passed over included."""
    total = sum(path.stat().st_size for path in corpus.paths[0].iterdir())
    for file in [None, *sorted(corpus.paths[0].glob("[a-e]*"))]:
        one = Corpus((file,)) if file else corpus
        done: list[int] = []
        totals: list[int] = []
        with encoded_corpus(tmp_path / "encoded", one, tokenizer, END, partial(tell, done, totals)):
            pass
        assert set(totals) == {file.stat().st_size if file else total}
        assert done == sorted(done)
        assert done[-1] == totals[-1] == one.reading.read_bytes


@given(st.lists(st.text(max_size=40), max_size=60), st.integers(1, 90))
def test_documents_come_in_order(tokenizer: Tokenizer, documents: list[str], batch_chars: int) -> None:
    encoding.BATCH_CHARS = batch_chars
    expected = [[*tokenizer.encode(text, add_special_tokens=False).ids, END] for text in documents]
    assert [ids.tolist() for ids in encode_documents(tokenizer, END, documents)] == expected


def test_texts_are_taken_a_bounded_number_ahead(tokenizer: Tokenizer) -> None:
    """Whoever stops asking leaves no thread behind."""
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "x" * 400

    encoded = encode_documents(tokenizer, END, endless())
    most = (AHEAD * CORES + 1) * (3000 // 400) + 1
    for given_out in range(50):
        next(encoded)
        assert taken - given_out <= most
    encoded.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("encode")]


@pytest.mark.parametrize("before", [None, "true"])
def test_a_batch_keeps_to_its_core_and_what_the_environment_said_stands_again(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv(PARALLELISM, raising=False)
    if before:
        monkeypatch.setenv(PARALLELISM, before)
    encoded = encode_documents(tokenizer, END, ["one text", "another"])
    next(encoded)
    assert os.environ[PARALLELISM] == "false"
    encoded.close()
    assert os.environ.get(PARALLELISM) == before


def test_an_interrupted_encoding_goes_on_to_the_same_files(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    expected = plain(corpus, tokenizer, tmp_path / "plain")
    found = [stopped(tmp_path, corpus, tokenizer, share) for share in (0.3, 0.6, 0.9, 0.1)]
    assert 4000 <= found[0] < found[1] < found[2] == found[3]
    assert_identical(encode(tmp_path, corpus, tokenizer), expected)
    assert not partial_path(tmp_path / "encoded").exists()


def test_what_is_committed_is_not_encoded_again(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """What is written over between the two is still there in the end."""
    before = stopped(tmp_path, corpus, tokenizer)
    files = [partial_path(tmp_path / "encoded") / f"{side}.bin" for side in SIDES]
    for file in files:
        file.write_bytes(b"\xff" * file.stat().st_size)
    tokens = encode(tmp_path, corpus, tokenizer)
    kept = sum(int((np.fromfile(tokens / f"{side}.bin", "<i4") == -1).sum()) for side in SIDES)
    assert kept == before


def touched(corpus: Corpus) -> Corpus:
    os.utime(corpus.paths[0] / "a.jsonl", ns=(1, 1))
    return corpus


def another(corpus: Corpus) -> Corpus:
    jsonl(corpus.paths[0] / "a.jsonl", texts(400, seed=1))
    return corpus


def grown(corpus: Corpus) -> Corpus:
    (corpus.paths[0] / "0.txt").write_text("a new file, and the first of all")
    return corpus


def smaller_share(corpus: Corpus) -> Corpus:
    return Corpus(corpus.paths, validation_share=0.3)


def other_column(corpus: Corpus) -> Corpus:
    return Corpus(corpus.paths, text_column="nothing")


@pytest.mark.parametrize("change", [touched, another, grown, smaller_share, other_column])
def test_another_corpus_is_encoded_anew(
    tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer, change: Callable[[Corpus], Corpus]
) -> None:
    assert stopped(tmp_path, corpus, tokenizer)
    changed = change(corpus)
    expected = plain(changed, tokenizer, tmp_path / "plain")
    assert stopped(tmp_path, changed, tokenizer, 0.0) == 0
    assert_identical(encode(tmp_path, changed, tokenizer), expected)


def test_another_tokenizer_encodes_anew(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    other = train_tokenizer(texts(200), 280)
    expected = plain(corpus, other, tmp_path / "plain")
    assert stopped(tmp_path, corpus, tokenizer)
    assert_identical(encode(tmp_path, corpus, other), expected)
    shutil.rmtree(tmp_path / "tokens")
    assert stopped(tmp_path, corpus, tokenizer)
    tokens = encode(tmp_path, corpus, tokenizer, end_id=7)
    ids, ends = np.fromfile(tokens / "train.bin", "<i4"), np.fromfile(tokens / "train.documents.bin", "<i8")
    assert set(ids[ends - 1]) == {7}


def test_files_that_are_shorter_than_was_committed_are_not_gone_on_from(
    tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer
) -> None:
    expected = plain(corpus, tokenizer, tmp_path / "plain")
    assert stopped(tmp_path, corpus, tokenizer)
    os.truncate(partial_path(tmp_path / "encoded") / "train.bin", 400)
    assert_identical(encode(tmp_path, corpus, tokenizer), expected)


def placed_twice(encoded: TokensWriter, folder: Path) -> None:
    encoded.place(folder)
    encoded.place(folder)


def test_a_run_that_was_made_of_it_stays_as_it_is(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """A kill when the run is in its place may leave the encoding, whose files are the run's by second names."""
    expected = plain(corpus, tokenizer, tmp_path / "plain")
    for name in ("first", "second"):
        with pytest.raises(FileExistsError), encoded_corpus(tmp_path / "encoded", corpus, tokenizer, END) as encoded:
            placed_twice(encoded, tmp_path / name)
    encode(tmp_path, another(corpus), tokenizer)
    for name in ("first", "second"):
        assert_identical(tmp_path / name, expected)


def test_one_process_encodes_at_a_time(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    with (
        encoded_corpus(tmp_path / "encoded", corpus, tokenizer, END),
        pytest.raises(EngramError, match="is being written by another process"),
    ):
        encode(tmp_path, corpus, tokenizer)


def in_child(job: Callable[[], object], seconds: float | None = None) -> float:
    """Seconds that a child takes for the job, or until it is killed."""
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            job()
        finally:
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.perf_counter() - began


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_kills_at_random_moments(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    expected, moments = plain(corpus, tokenizer, tmp_path / "plain"), random.Random(0)
    usual = in_child(lambda: encode(tmp_path / "timing", corpus, tokenizer))
    assert_identical(tmp_path / "timing" / "tokens", expected)
    found, place = set(), tmp_path / "killed"
    for _ in range(KILLS):
        in_child(lambda: encode(place, corpus, tokenizer), moments.random() * usual)
        found.add(committed(place / "encoded"))
        shutil.rmtree(place / "tokens", ignore_errors=True)
    assert len(found) > 2, "some died between two commits"
    assert_identical(encode(place, corpus, tokenizer), expected)


@pytest.mark.parametrize("kind", ["SIGKILL", "Ctrl-C"])
def test_whatever_file_operation_it_comes_before(tmp_path: Path, corpus: Corpus, tokenizer: Tokenizer, kind: Kind) -> None:
    expected = plain(corpus, tokenizer, tmp_path / "plain")
    count = operations(lambda: encode(tmp_path / "fresh", corpus, tokenizer), tmp_path / "fresh")
    for number in range(1, count + 1, max(1, count // 10)):
        place = tmp_path / str(number)
        interrupted(lambda place=place: encode(place, corpus, tokenizer), place, number, kind)
        shutil.rmtree(place / "tokens", ignore_errors=True)
        assert_identical(encode(place, corpus, tokenizer), expected)


def train(run: Run, *paths: Path) -> list[str]:
    """The command line of a short training."""
    named = [word for path in paths for word in ("--corpus", str(path))]
    return ["train", *named, "--preset", "nano", "--steps", "2", "--run", str(run.folder)]


@pytest.fixture
def run(tmp_path: Path, tokenizer: Tokenizer) -> Run:
    """With a vocabulary and nothing else."""
    run = Run(tmp_path / "run")
    write_text(run.tokenizer_path, tokenizer.to_str())
    CanonicalVocab.from_tokenizer(tokenizer).save(run.vocab_path)
    return run


def test_a_full_drive_keeps_what_was_encoded(tmp_path: Path, run: Run, corpus: Corpus, tokenizer: Tokenizer) -> None:
    expected = plain(corpus, tokenizer, tmp_path / "plain")
    with largest_file(100_000):
        done = engram(*train(run, *corpus.paths))
    refused(done, 1, "File too large")
    kept = partial_path(run.folder / "tokens")
    assert f"what was encoded so far is in {kept}: the same command goes on from there" in done.stderr
    assert not run.config_path.exists()
    assert engram(*train(run, *corpus.paths)).returncode == 0
    assert_identical(run.train_folder / "tokens", expected)
    assert not kept.exists()


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, run: Run, corpus: Corpus, tokenizer: Tokenizer) -> None:
    expected = plain(corpus, tokenizer, tmp_path / "plain")

    def told() -> None:
        try:
            command(train(run, *corpus.paths))
        except CommandInterruptedError as e:
            (tmp_path / "told").write_text(f"{e}; {e.hint}")
            raise

    interrupted(told, partial_path(run.folder / "tokens") / "written.json.partial", 20, "Ctrl-C")
    kept = partial_path(run.folder / "tokens")
    assert (tmp_path / "told").read_text() == (
        f"interrupted; what was written so far is in {kept}; the same command goes on from there"
    )
    assert engram(*train(run, *corpus.paths)).returncode == 0
    assert_identical(run.train_folder / "tokens", expected)


def test_a_damaged_file_in_the_middle(tmp_path: Path, run: Run, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Named outright it ends the encoding with a sentence; once it is mended, its corpus is another."""
    files = sorted(corpus.paths[0].glob("[a-d]*"))
    damaged = files[2]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    refused(engram(*train(run, *files)), 1, "c.jsonl.zst is damaged: it ends within a zstd frame")
    assert committed(run.folder / "tokens") > 0
    damaged.write_bytes(whole)
    assert engram(*train(run, *files)).returncode == 0
    assert_identical(run.train_folder / "tokens", plain(Corpus(tuple(files)), tokenizer, tmp_path / "plain"))


def test_a_training_side_smaller_than_a_batch(tmp_path: Path, run: Run) -> None:
    """A batch would take windows twice; with as many as there are, it takes each once."""
    path = jsonl(tmp_path / "few.jsonl", texts(30))
    done = engram(*train(run, path), "--set", "recipe.batch=64")
    refused(done, 1, r"the training side has [\d,]+ tokens, \d+ windows of 64; a batch takes 64")
    hint = re.search(r"hint: give more text, or take smaller batches, as in --set recipe.batch=(\d+)", done.stderr)
    assert hint
    assert not list(run.folder.rglob("*.partial"))
    assert engram(*train(run, path), "--set", f"recipe.batch={int(hint[1]) + 1}").returncode == 1
    assert engram(*train(run, path), "--set", f"recipe.batch={hint[1]}").returncode == 0
