"""What a person says of a corpus and of special tokens on the command line, and what the run remembers of it."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from engram_cli.options import chosen_corpus
from hashing.text.corpus import Corpus
from runtime.run import Run
from tests.commands import document, engram, engram_process, refused
from tests.small_tokenizers import byte_level, unigram, wordpiece

LINES = "".join(f"line {i} of a text about {i * i}\n" for i in range(2000))


@pytest.fixture
def one_file(tmp_path: Path) -> Path:
    (tmp_path / "one.txt").write_text(LINES)
    return tmp_path / "one.txt"


def test_a_run_remembers_its_corpus(tmp_path: Path, one_file: Path) -> None:
    run = ("--run", tmp_path / "run")
    done = engram("build-vocab", "--corpus", one_file.name, "--size", 300, "--validation-share", 0.1, *run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "split 1 document at line ends into" in done.stderr
    assert Corpus.load(tmp_path / "run" / "corpus.json") == Corpus((one_file,), validation_share=0.1)
    counted = engram("stats", *run, "--json")
    assert f"corpus: {one_file}, as {tmp_path / 'run' / 'corpus.json'} remembers\n" in counted.stderr
    assert "corpus:" not in engram("stats", one_file, *run, "--counts", tmp_path / "again.parquet").stderr
    assert "split 1 document at line ends into" in counted.stderr
    named = document("stats", one_file, *run, "--counts", tmp_path / "named.parquet")
    assert json.loads(counted.stdout)["totals"] == named["totals"]
    followed = engram("stats", "traffic", *run)
    assert "remembers" in followed.stderr
    assert "split 1 document" in followed.stderr


def test_what_else_is_given_changes_what_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"a {i}", "body": f"b {i} {i}"}) + "\n" for i in range(300)))
    run = Run(tmp_path / "run")

    def remembered(*options: object) -> Corpus:
        done = engram("build-vocab", *options, "--size", 257, "--force", "--run", run.folder)
        assert done.returncode == 0, done.stderr
        return Corpus.load(run.corpus_path)

    first = remembered("--corpus", tmp_path, "--encoding", "latin-1")
    assert (first.paths, first.text_key, first.encoding) == ((tmp_path,), "text", "latin-1")
    second = remembered("--text-key", "body")
    assert (second.paths, second.text_key, second.encoding) == ((tmp_path,), "body", "latin-1")
    (tmp_path / "held.txt").write_text("held out")
    third = remembered("--validation", tmp_path / "held.txt")
    assert (third.text_key, third.validation) == ("body", (tmp_path / "held.txt",))
    fourth = remembered("--validation-share", "0.25")
    assert (fourth.validation, fourth.validation_share) == ((), 0.25)
    assert remembered("--corpus", tmp_path / "a.jsonl") == Corpus((tmp_path / "a.jsonl",))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--corpus", "one.txt", "--encoding", "latin-11"], 2, 'no encoding of text is called "latin-11"\nhint: did you mean'),
        (["--corpus", "one.txt", "--validation-share", "1.5"], 2, "a validation share of 1.5"),
        (["--validation", "one.txt", "--validation-share", "0.5"], 2, "--validation and --validation-share are both given"),
        (["--corpus", "one.txt", "--validation", "none.txt"], 1, "no such file or folder: none.txt"),
        (["tok", "--encoding", "latin-1"], 2, "a tokenizer and a corpus are both given"),
        (["tok", "--eos", "<stopp>"], 2, '--eos names "<stopp>".*\nhint: did you mean <stop>[?]'),
        (["tok", "--pad", "<zzzzzzzz>"], 2, '--pad names "<zzzzzzzz>"'),
        (
            ["none"],
            1,
            "no token of none ends a document.*\nhint: --eos TOKEN .* its special tokens are \\[UNK\\], \\[STOP\\]\n",
        ),
        (["./nosuch"], 1, "no such file: nosuch"),
        (["one.txt"], 1, "one.txt is not a tokenizer.json.*\nhint: .*engram build-vocab --corpus FILE"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, one_file: Path, arguments: list[str], code: int, message: str) -> None:
    assert one_file.exists()
    for name, tokenizer in {"tok": byte_level("<stop>"), "none": wordpiece("[STOP]")}.items():
        (tmp_path / name).mkdir()
        tokenizer.save(str(tmp_path / name / "tokenizer.json"))
    refused(engram("build-vocab", *arguments, "--run", "run", cwd=tmp_path), code, message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["nosuch/a/thing"], ["--corpus", "nosuch/thing"]])
def test_what_is_missing_is_told_before_what_is_in_the_way(vocab_run: Run, tmp_path: Path, arguments: list[str]) -> None:
    refused(engram("build-vocab", *arguments, "--run", vocab_run.folder, cwd=tmp_path), 1, "no such file")


def test_a_corpus_that_nobody_named_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A control that is trained beside a run remembers no corpus, and the default is another one than the run's."""
    assert chosen_corpus(Run(tmp_path), None, "", "", "") == Corpus()
    assert capsys.readouterr().err == "corpus: the Python standard library's source, as no other is named\n"


def test_a_name_that_the_hub_is_asked_for_is_said_to_be_none_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with engram_process("build-vocab", "tokeniser", "--run", "run", cwd=tmp_path) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    assert said.startswith('no file or folder is called "tokeniser": asking the hub for it\n'), said
    assert process.returncode == 1


def test_special_tokens_are_found_printed_and_chosen(tmp_path: Path) -> None:
    folder = tmp_path / "tok"
    folder.mkdir()
    tokenizer = byte_level("<stop>", "<fill>")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<stop>"}}')
    stop, fill = map(tokenizer.token_to_id, ("<stop>", "<fill>"))
    built = document("build-vocab", folder, "--run", tmp_path / "a")
    assert [built[key] for key in ("eos_token", "eos_token_id", "pad_token", "pad_token_id")] == [
        "<stop>",
        stop,
        "<stop>",
        stop,
    ]
    assert built["loses_characters"] is False
    done = engram("build-vocab", folder, "--eos", "<|endoftext|>", "--pad", "<fill>", "--run", tmp_path / "b")
    assert f"end of text <|endoftext|> (id 0), pad <fill> (id {fill})\n" in done.stdout
    vocab = Run(tmp_path / "b").vocab()
    assert (vocab.eos_token_id, vocab.pad_token_id) == (0, fill)
    assert not (tmp_path / "b" / "corpus.json").exists()


@pytest.mark.parametrize(("tokenizer", "end"), [(wordpiece("[PAD]", "[SEP]"), "[SEP]"), (unigram("<EOT>"), "<EOT>")])
def test_a_tokenizer_that_loses_characters_is_told(tmp_path: Path, one_file: Path, tokenizer: Tokenizer, end: str) -> None:
    """And works otherwise."""
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    done = engram("build-vocab", path, "--run", tmp_path / "run", "--json")
    assert "warning: the tokenizer loses characters" in done.stderr
    assert json.loads(done.stdout)["loses_characters"] is True
    assert json.loads(done.stdout)["eos_token"] == end
    done = engram("train", "--corpus", one_file, "--preset", "nano", "--steps", "2", "--run", tmp_path / "run")
    assert "note: the tokenizer loses characters: bits per byte are too low" in done.stderr
    counted = document("stats", one_file, "--run", tmp_path / "run")
    assert counted["totals"]["documents"] > 200
