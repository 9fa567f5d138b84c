"""Corpora as people have them: one file, a folder of everything, encodings from before UTF-8, JSON that is an array."""

import gzip
import json
from collections.abc import Callable
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from hashing.base.errors import EngramError, UsageError
from hashing.text.corpus import MAX_DOCUMENT_CHARS, Corpus
from hashing.text.reading import Remark
from hashing.text.records import WINDOW_CHARS
from hashing.text.sides import ENOUGH_DOCUMENTS, MAX_PIECE_CHARS, MIN_PIECE_CHARS, Division, divide, position

LINES = "".join(f"line {i} of a text, é and {i * i}\n" for i in range(4000))  # 150 kB


def texts(*paths: Path, **options: Any) -> list[str]:
    return [d.text for d in Corpus(paths, **options).documents()]


def many(folder: Path, count: int = ENOUGH_DOCUMENTS) -> Path:
    """As many documents as make two sides without being split."""
    (folder / "many.jsonl").write_text("".join(json.dumps({"text": f"document {i}"}) + "\n" for i in range(count)))
    return folder / "many.jsonl"


def one_text(path: Path) -> Path:
    path.write_text(LINES * 8)
    return path


def one_zstd(path: Path) -> Path:
    path.write_bytes(zstandard.compress((LINES * 14).encode()))
    return path.rename(path.with_suffix(".txt.zst"))


def one_array(path: Path) -> Path:
    path.write_text(json.dumps([{"text": LINES}, {"text": LINES[5:]}]))
    return path.rename(path.with_suffix(".json"))


@pytest.mark.parametrize("write", [one_text, one_zstd, one_array])
def test_one_file_is_a_corpus(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    corpus = Corpus((write(tmp_path / "one.txt"),))
    documents = list(corpus.documents())
    sides = [d.side for d in documents]
    assert 0.005 < sides.count("validation") / len(sides) < 0.1
    assert sides.count("validation") > 1
    assert all(d.text.endswith("\n") for d in documents)
    assert max(len(d.text) for d in documents) <= 1.5 * MAX_PIECE_CHARS
    assert len({d.name for d in documents}) == len(documents) == corpus.reading.pieces
    assert list(corpus.documents()) == documents
    assert corpus.reading.pieces == len(documents)  # of one pass, not of both
    assert f"into {len(documents):,} pieces" in corpus.reading.notes()[0]


def test_a_text_comes_back_whole_from_its_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(LINES)
    assert "".join(texts(tmp_path / "a.txt")) == LINES


@given(text=st.text("ab \n", max_size=300), size=st.integers(2, 40))
def test_pieces_end_at_line_ends_else_at_spaces(text: str, size: int) -> None:
    pieces = list(Division(0, size).pieces(text))
    assert "".join(pieces) == text
    assert len(pieces[-1]) <= size * 3 // 2
    for piece in pieces[:-1]:
        assert 0 < len(piece) <= size
        body = piece[:-1]
        assert piece.endswith("\n") or (piece.endswith(" ") and "\n" not in body) or not {"\n", " "} & set(piece)


@given(
    documents=st.lists(st.text("ab\n ", min_size=1, max_size=700), min_size=1, max_size=12),
    share=st.sampled_from([1e-9, 1 / 32, 0.5, 1 - 1e-9]),
)
def test_few_documents_make_two_sides(documents: list[str], share: float) -> None:
    division = divide(lambda: iter(documents), share)
    pieces = [piece for text in documents for piece in division.pieces(text)]
    assert MIN_PIECE_CHARS <= division.piece_chars <= MAX_PIECE_CHARS
    assert len({division.side(piece) for piece in pieces}) == min(2, len(set(pieces)))


def test_enough_documents_are_left_whole_and_no_more_is_read_to_know_it() -> None:
    taken = 0

    def documents() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield f"document {taken}\n" * 1000

    division = divide(documents, 0.25)
    assert (division.piece_chars, taken) == (0, ENOUGH_DOCUMENTS)
    assert list(division.pieces("a\n" * 100_000)) == ["a\n" * 100_000]


def test_what_validates_at_one_share_validates_at_every_larger_one() -> None:
    sides = {
        share: {i for i in range(4000) if Division(round(share * 2**64)).side(f"text {i}") == "validation"}
        for share in (0.02, 1 / 32, 0.1, 0.5)
    }
    assert sides[0.02] < sides[1 / 32] < sides[0.1] < sides[0.5]
    for share, chosen in sides.items():
        assert len(chosen) / 4000 == pytest.approx(share, rel=0.35)


@given(st.text(max_size=20))
def test_a_position_is_the_bits_of_the_hash_the_lowest_first(text: str) -> None:
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
    assert position(text) == sum(1 << (63 - bit) for bit in range(64) if number >> bit & 1)


def test_a_folder_of_everything_says_what_it_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    (folder / ".git").mkdir(parents=True)
    files: dict[str, bytes] = {
        "a.txt": "plain é\n".encode(),
        "b.txt": "marked é\n".encode("utf-8-sig"),
        "c.txt": "sixteen é\n".encode("utf-16"),
        "d.txt": b"\xfe\xff" + "big-endian é\n".encode("utf-16-be"),
        "e.txt": "thirty-two é\n".encode("utf-32"),
        "f.txt": "latin é\n".encode("latin-1"),
        "g.txt": "latin too è\n".encode("latin-1"),
        "h.htm": b"<p>markup</p>",
        "i.txt": b"\n <!DOCTYPE HTML><title>page</title>",
        "j.json": b'{"name": "package", "version": 1}',
        "k.jsonl": b'{"text": "before the fault"}\n{"text": "cut o',
        "l.jsonl": b'{"body": "elsewhere"}\n',
        "m.json": b'["in an array", {"text": "as an object"}]',
        "n.png": b"\x89PNG\0\0\0",
        "o.json": b"{,}",
        "q.parquet": b"PAR1 not",
        "r.txt.gz": gzip.compress(b"cut off" * 1000)[:-9],
        "s.txt.zst": zstandard.compress(LINES.encode())[:-20],
        ".git/config": b"hidden",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    pq.write_table(pa.table({"n": [1, 2]}), folder / "p.parquet")
    corpus = Corpus((folder,))
    expected = ["plain é\n", "marked é\n", "sixteen é\n", "big-endian é\n", "thirty-two é\n"]
    expected += ["before the fault", "in an array", "as an object"]
    for _ in range(2):  # a second pass counts anew
        assert [d.text for d in corpus.documents()] == expected
        assert {remark: tally.count for remark, tally in corpus.reading.tallies.items()} == {
            Remark.NOT_UTF8: 2,
            Remark.HTML: 2,
            Remark.NO_TEXTS: 3,
            Remark.NOT_JSON: 1,
            Remark.NOT_TEXT: 1,
            Remark.DAMAGED: 3,
            Remark.HIDDEN: 1,
            Remark.BROKEN_OFF: 1,
            Remark.DECODED: 3,
        }
    notes = "\n".join(corpus.reading.notes())
    for said in (
        "passed over 2 files, not UTF-8 (--encoding",
        "f.txt",
        "k.jsonl:2 is not JSON",
        'l.jsonl:1 has no text under "text"; found body',
        "found name, version",
        "n.png",
        "q.parquet cannot be read as Parquet",
        "r.txt.gz is damaged",
        "c.txt (utf-16)",
        "· and 1 more",
    ):
        assert said in notes
    assert texts(folder, encoding="latin-1") == [*expected[:5], "latin é\n", "latin too è\n", *expected[5:]]


def test_a_folder_of_plain_texts_has_nothing_to_say(tmp_path: Path) -> None:
    many(tmp_path)
    corpus = Corpus((tmp_path,))
    assert len(list(corpus.documents())) == ENOUGH_DOCUMENTS
    assert corpus.reading.notes() == []


def test_a_folder_with_no_text_says_what_was_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(EngramError, match="the corpus is empty: no text in") as refusal:
        texts(tmp_path)
    assert "a.txt" in refusal.value.hint
    assert "--encoding" in refusal.value.hint


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf_16_be", "shift_jis", "koi8-r"])
def test_an_encoding_is_of_files_that_are_not_utf8(tmp_path: Path, encoding: str) -> None:
    """However late in a file it shows."""
    text = "a" * 20_000 + {"shift_jis": "日本語", "koi8-r": "русский"}.get(encoding, "é à") + "\n"
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    (tmp_path / "b.txt").write_text(text + "日本語 é")
    many(tmp_path)
    assert texts(tmp_path, encoding=encoding)[:2] == [text, text + "日本語 é"]
    (tmp_path / "binary.txt").write_bytes(b"\x89PNG\0\0\xd8\xff")
    corpus = Corpus((tmp_path,), encoding=encoding)
    assert len(list(corpus.documents())) == ENOUGH_DOCUMENTS + 2
    assert corpus.reading.count(Remark.NOT_TEXT) == 1


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"encoding": "latin-11"}, 'no encoding of text is called "latin-11"', "did you mean latin"),
        ({"encoding": "rot13"}, 'no encoding of text is called "rot13"', ""),
        ({"encoding": "hex"}, 'no encoding of text is called "hex"', ""),
        ({"validation_share": 0.0}, "a validation share of 0 ", "a part of 1"),
        ({"validation_share": 1.0}, "a validation share of 1 ", "a part of 1"),
        ({"validation_share": float("nan")}, "a validation share of nan", "a part of 1"),
    ],
)
def test_a_corpus_that_cannot_be(options: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        Corpus(**options)
    assert hint in refusal.value.hint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "é".encode("latin-1"), "is not UTF-8 text: byte 0xe9"),
        ("a.txt", b"\xff\xfea", "nor text in utf-16"),
        ("a.json", b'{"name": 1, "b": 2}', 'a.json has no text under "text"; found name, b'),
        ("a.json", b"{}", "found no key"),
        ("a.json", b"[1]", r"a.json\[0\] has no text under .*; found int"),
        ("a.json", b'["a" "b"]', 'expected "," or "]" after a member of the array, at character 6'),
        ("a.json", b'["a", ]', "Expecting value, at character 7"),
        ("a.json", b'["a"', 'expected "," or "]"'),
        ("a.json", b'["a", "b', "Unterminated string.*, at character 7"),
        ("a.json", b'["a"] 3', "something follows the array"),
        ("a.json", b'["' + b"\\ud800" + b'"]', "half of a surrogate pair"),
        ("a.json", b"[" * 200_000, "is not JSON that can be read"),
        ("a.txt.zst", zstandard.compress(LINES.encode())[:-20], "damaged: it ends within a zstd frame"),
    ],
)
def test_a_file_named_outright_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EngramError, match=message):
        texts(tmp_path / name)


def test_frames_of_zstd_follow_one_another(tmp_path: Path) -> None:
    (tmp_path / "a.txt.zst").write_bytes(b"".join(zstandard.compress(f"frame {i}\n".encode()) for i in range(5)))
    assert texts(tmp_path / "a.txt.zst") == ["".join(f"frame {i}\n" for i in range(5))]


def test_html_named_outright_is_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><p>text</p></html>")
    corpus = Corpus((tmp_path / "a.html",))
    assert [d.text for d in corpus.documents()] == ["<html><p>text</p></html>"]
    assert "markup and all" in corpus.reading.notes()[0]


@pytest.mark.parametrize("spread", [None, 1])
@pytest.mark.parametrize("window", [1, 2, 7, 100, WINDOW_CHARS])
def test_json_arrays_are_read_through_a_window(
    tmp_path: Path, window: int, spread: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it cuts: within escapes, pairs, numbers, names, and texts longer than it."""
    monkeypatch.setattr("hashing.text.records.WINDOW_CHARS", window)
    wanted = ["x" * i + '\\"\n\u2028é😀' * (i % 97) for i in range(1, 900)] + ["y" * (3 * WINDOW_CHARS), "end"]
    records = [{"n": 123456.5e3, "flag": False, "none": None, "text": text, "more": [{"é": True}]} for text in wanted]
    (tmp_path / "a.json").write_text(json.dumps(records, indent=spread))
    (tmp_path / "b.json").write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records))
    for name in ("a.json", "b.json"):
        named = Corpus((many(tmp_path), tmp_path / name))  # among enough to be left whole
        assert [d.text for d in named.documents()][ENOUGH_DOCUMENTS:] == wanted


def test_one_object_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"body": "the text", "id": 3}))
    assert texts(tmp_path / "a.json", text_key="body") == ["the text"]


def test_validation_files_are_that_whole_side(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    many(folder, 40)
    (folder / "held.jsonl").write_text('{"text": "held out"}\n{"text": "document 7"}\n')
    corpus = Corpus((folder,), validation=(folder / "held.jsonl",))
    for _ in range(2):
        documents = list(corpus.documents())
        assert {d.text for d in documents if d.side == "validation"} == {"held out", "document 7"}
        training = [d.text for d in documents if d.side == "train"]
        assert training == [f"document {i}" for i in range(40) if i != 7]
        assert corpus.reading.count(Remark.DUPLICATE) == 1
    assert "left 1 document out of training" in "\n".join(corpus.reading.notes())
    (tmp_path / "one.txt").write_text(LINES)
    whole = list(Corpus((tmp_path / "one.txt",), validation=(folder,)).documents())
    assert [d.text for d in whole if d.side == "train"] == [LINES]  # there are two sides: nothing needs to be split
    with pytest.raises(EngramError, match="nothing is left to train on"):
        texts(folder, validation=(folder,))
    with pytest.raises(EngramError, match="no such file"):
        texts(folder, validation=(tmp_path / "none",))


def test_validation_beside_the_default_corpus(tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("held out")
    corpus = Corpus(validation=(tmp_path,))
    assert corpus.files()[0] == (tmp_path / "held.txt", False)
    assert all(file.suffix == ".py" for file, _ in corpus.files()[1:])
    assert next(corpus.documents()).side == "validation"


def test_a_corpus_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = Corpus((Path("a"), Path("b")), "body", "column", "latin-1", (Path("held"),), 0.1)
    corpus.save(tmp_path / "corpus.json")
    absolute = Corpus((tmp_path / "a", tmp_path / "b"), "body", "column", "latin-1", (tmp_path / "held",), 0.1)
    assert Corpus.load(tmp_path / "corpus.json") == absolute
    Corpus().save(tmp_path / "default.json")
    assert Corpus.load(tmp_path / "default.json") == Corpus()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format is 2, expected 1"),
        ({"colour": "red"}, "missing or unknown: colour"),
        ({"paths": "a"}, "paths is 'a', expected a list"),
        ({"paths": [1]}, "paths is 1, expected a list of texts"),
        ({"encoding": "none"}, 'no encoding of text is called "none"'),
        ({"validation_share": 2}, "validation share of 2"),
        ({"validation_share": "x"}, "expected a finite number"),
    ],
)
def test_a_remembered_corpus_that_is_none(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "corpus.json"
    Corpus().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EngramError, match=rf"corpus\.json.*{message}") as refusal:
        Corpus.load(path)
    assert refusal.value.exit_code == 1


def test_a_long_text_is_no_document_longer_than_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "no_ends.txt").write_text("z" * (MAX_DOCUMENT_CHARS + 5))
    assert max(map(len, texts(tmp_path / "no_ends.txt"))) <= 1.5 * MAX_PIECE_CHARS


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.json", "a.txt"])
def test_a_reading_knows_how_far_it_is_in_a_file(tmp_path: Path, name: str) -> None:
    """In bytes as they lie in it; a compressed one is read in pieces too."""
    digits = ["".join(sha256(f"{i} {j}".encode()).hexdigest() for j in range(4)) for i in range(6000)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in digits)
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": digits}), path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif name.endswith(".zst"):
        path.write_bytes(zstandard.compress(lines.encode()))
    elif name.endswith(".json"):
        path.write_text(json.dumps(digits))
    else:
        path.write_text(lines)
    corpus = Corpus((path,))
    shares = [corpus.reading.read_bytes / path.stat().st_size for _ in corpus.documents()]
    assert shares == sorted(shares)
    assert shares[len(shares) // 2] == pytest.approx(0.5, abs=0.2)
    assert corpus.reading.read_bytes == path.stat().st_size


def test_files_come_in_the_order_of_their_paths_parts(tmp_path: Path) -> None:
    """As `sorted` puts Paths, of which the parts are compared and not the text. No link to a folder is followed."""
    root = tmp_path / "root"
    for name in ("a/z", "a.b/y", "a-b/x", "a.txt", "a/b/c", ".a/w", "B", "~", "é/ü", "b/.hidden", "b/shown"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"the text of {name}\n")
    (root / "link").symlink_to(root / "a")
    (root / "linked").symlink_to(root / "B")
    (root / "loop").symlink_to(root / "loop")
    (root / "broken").symlink_to(root / "nowhere")
    shown = [file for file, _ in Corpus((root,)).files()]
    inside = (file for file in root.rglob("*") if file.is_file() and "link" not in file.relative_to(root).parts)
    assert shown == sorted(file for file in inside if not any(part.startswith(".") for part in file.relative_to(root).parts))
    assert root / "linked" in shown
