"""Documents from every kind of file, on a side that follows from their text alone."""

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from hashing.base.errors import EngramError
from hashing.text.corpus import MAX_DOCUMENT_CHARS, Corpus
from hashing.text.sides import ENOUGH_DOCUMENTS

TEXTS = ["first é text\n", "second\r\ntext", "日本語"]


def jsonl(texts: list[str], key: str = "text") -> bytes:
    return "".join(json.dumps({key: t, "id": i}) + "\n" for i, t in enumerate(texts)).encode()


def read(path: Path, **options: str) -> list[str]:
    return [d.text for d in Corpus((path,), **options).documents()]  # type: ignore[arg-type]


@pytest.mark.parametrize(("ending", "pack"), [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)])
def test_text_and_jsonl_plain_or_compressed(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / f"a.md{ending}").write_bytes(pack(TEXTS[1].encode()))
    (tmp_path / f"b.jsonl{ending}").write_bytes(pack(jsonl(TEXTS)))
    assert read(tmp_path) == [TEXTS[1], *TEXTS]


def test_keys_and_columns_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS, "body"))
    pq.write_table(pa.table({"body": TEXTS, "n": [1, 2, 3]}), tmp_path / "b.parquet")
    assert read(tmp_path, text_key="body", text_column="body") == TEXTS + TEXTS


def test_the_default_is_the_standard_library() -> None:
    names = {Path(file).name for file, _ in Corpus().files()}
    assert {"argparse.py", "dataclasses.py", "tokenize.py"} <= names
    assert all(file.suffix == ".py" and "site-packages" not in file.parts for file, _ in Corpus().files())


def test_a_folder_passes_over_what_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "c.py").write_bytes(b"x = 1\n" * 5000 + b"\xff\xfe")
    (tmp_path / ".hidden").write_text("hidden")
    assert read(tmp_path) == ["text"]


def test_a_long_text_becomes_several_documents_cut_at_line_ends(tmp_path: Path) -> None:
    """Among enough others: where there are few, they are split further."""
    line = "x" * 99 + "\n"
    (tmp_path / "long.txt").write_text(line * 25_000)
    (tmp_path / "many.jsonl").write_bytes(jsonl([f"text {i}" for i in range(ENOUGH_DOCUMENTS)]))
    documents = [d.text for d in Corpus((tmp_path,)).documents() if "long.txt" in d.name]
    assert len(documents) == 3
    assert all(len(d) <= MAX_DOCUMENT_CHARS and d.endswith("\n") for d in documents)
    assert "".join(documents) == line * 25_000


def test_sides_follow_from_the_text_alone_and_split_one_in_thirty_two(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(6400)]
    for number in range(7):
        (tmp_path / f"name{number}.jsonl").write_bytes(jsonl(texts[number::7]))
    pq.write_table(pa.table({"text": texts}), tmp_path / "other.parquet")
    documents = list(Corpus((tmp_path,)).documents())
    sides = {d.text: d.side for d in documents}
    assert [sides[d.text] for d in documents] == [d.side for d in documents]
    assert len(documents) == 2 * len(sides) == 2 * 6400
    assert 150 < list(sides.values()).count("validation") < 250
    for text, side in sides.items():  # the first five bits of the hash, as ever
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        assert side == ("train" if digest[0] % 32 else "validation")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.txt", b"ab\0c", "NUL"),
        ("a.txt", b"", "empty"),
        ("a.jsonl", b'{"text": "a"}\n{"text"', r"a.jsonl:2 is not JSON"),
        ("a.jsonl", b'{"body": "a"}\n', 'no text under "text"; found body'),
        ("a.jsonl", b"[1]\n", "found list"),
        ("a.txt.gz", b"not gzip", "damaged"),
        ("a.txt.gz", gzip.compress(b"text" * 1000, mtime=0)[:-9], "damaged"),
        ("a.txt.zst", b"not zstd", "damaged"),
        ("a.parquet", b"PAR1 not", "Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_says_what_is_wrong(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EngramError, match=message):
        read(tmp_path / name)


def test_a_missing_path_and_a_wrong_column(tmp_path: Path) -> None:
    with pytest.raises(EngramError, match="no such file"):
        read(tmp_path / "nothing")
    pq.write_table(pa.table({"n": [1]}), tmp_path / "b.parquet")
    with pytest.raises(EngramError, match='no column "text"; it has n'):
        read(tmp_path / "b.parquet")
    with pytest.raises(EngramError, match="holds int"):
        read(tmp_path / "b.parquet", text_column="n")


def test_reading_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 200 MB of lines is read in far less."""
    with gzip.open(tmp_path / "big.txt.gz", "wt", compresslevel=1) as file:
        for _ in range(200):
            file.write(("y" * 99 + "\n") * 10_000)
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom hashing.text.corpus import Corpus\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "total = sum(len(d.text) for d in Corpus((Path(sys.argv[1]),)).documents())\n"
        "print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    total, grown_kib = map(int, done.stdout.split())
    assert total == 200_000_000
    assert grown_kib < 50_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "\\ud800"}', "half of a surrogate pair"),
        ("[" * 100_000, "is not JSON that can be read"),
        ('{"text": "a", "n": ' + "1" * 5000 + "}", "is not JSON that can be read"),
    ],
)
def test_json_that_no_one_should_write(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(EngramError, match=f"a.jsonl:1 .*{message}"):
        read(tmp_path / "a.jsonl")


def test_a_damaged_file_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"text" * 1000)[:30])
    with pytest.raises(EngramError, match="no text in") as refused:
        read(tmp_path)
    assert "a.gz is damaged" in refused.value.hint
