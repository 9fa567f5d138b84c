"""The command line as a person meets it: every command works, and every mistake gets one sentence."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from runtime.run import Run
from tests.commands import ROOT, document, engram, engram_process, largest_file, refused
from tests.runs import content

LIMIT_BYTES = 200_000


def test_build_vocab_train_generate_and_inspect(tmp_path: Path, corpus_path: Path) -> None:
    run = tmp_path / "run"
    vocab = document("build-vocab", "--corpus", corpus_path, "--size", "400", "--run", run)
    assert vocab["tokens"] == 400
    assert vocab["reduction_percent"] == pytest.approx(100 * (1 - vocab["canonical"] / 400))
    assert sum(c["size"] for c in vocab["classes"]) <= 400
    trained = document("train", "--corpus", corpus_path, "--preset", "nano", "--steps", "10", "--run", run)
    assert trained["steps"] == 10
    assert 0 < trained["validation_nats"] < trained["suppressed_nats"] + 1
    resident = document("generate", "def ", "--max-tokens", "9", "--run", run)
    offloaded = document("generate", "def ", "--max-tokens", "9", "--offload", "--run", run)
    assert (resident["placement"], offloaded["placement"]) == ("device", "disk")
    assert resident["text"] == offloaded["text"]
    hashed, view = document("hash", "def parse", "--run", run), document("inspect", "ngram", "def parse", "--run", run)
    assert hashed["token_ids"] == view["token_ids"]
    last = hashed["rows"]["1"][-1]
    orders = view["layers"]["1"]["orders"]
    assert [row for order in orders.values() for row in order["rows"]] == last
    assert all(norm > 0 for order in orders.values() for norm in order["row_norms"])


def test_counts_of_ngrams_are_those_of_the_training_side(trained_run: Run) -> None:
    view = document("inspect", "ngram", "self.", "--no-lens", "--run", trained_run.folder)
    vocab, ids = trained_run.vocab(), trained_run.tokenizer().encode("self.").ids
    from runtime.tokens import Tokens

    stream = vocab.mapping[Tokens.open(trained_run.train_folder / "tokens").ids("train")].tolist()
    pair = vocab.mapping[ids[-2:]].tolist()
    expected = sum(stream[i : i + 2] == pair for i in range(len(stream)))
    assert expected > 100
    assert view["layers"]["1"]["orders"]["2"]["training_count"] == expected


@pytest.mark.parametrize(
    "command", [["hash", "x"], ["train"], ["generate", "x"], ["serve", "--port", "0"], ["inspect", "ngram", "x"]]
)
def test_without_a_vocabulary_every_command_says_what_to_run_first(tmp_path: Path, command: list[str]) -> None:
    done = engram(*command, cwd=tmp_path)
    refused(done, 1, "hint: first run: engram build-vocab\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", [["generate", "x"], ["serve", "--port", "0"], ["inspect", "ngram", "x"], ["train", "--resume"]]
)
def test_a_run_without_a_model_says_what_to_run_first(vocab_run: Run, command: list[str]) -> None:
    refused(engram(*command, "--run", vocab_run.folder), 1, f"hint: first run: engram train --run {vocab_run.folder}\n")


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, ["--corpus", "FILE"], "no such file"),
        (b"", ["--corpus", "FILE"], "empty"),
        (b"\x7fELF\0\0\0", ["--corpus", "FILE"], "not text|not UTF-8"),
        (b'{"model": 3}', ["FILE"], "not a tokenizer"),
        (b"\xff\xfe", ["FILE"], "not a tokenizer"),
        (None, ["./FILE"], "no such file"),
    ],
)
def test_bad_input_to_build_vocab(tmp_path: Path, content: bytes | None, arguments: list[str], message: str) -> None:
    if content is not None:
        (tmp_path / "file.json").write_bytes(content)
    done = engram("build-vocab", *(a.replace("FILE", "file.json") for a in arguments), "--run", "new", cwd=tmp_path)
    refused(done, 1, message)
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten_without_force(trained_run: Run) -> None:
    before = trained_run.vocab_path.read_bytes()
    refused(engram("build-vocab", "--run", trained_run.folder), 1, "would be overwritten.*\nhint: .*--force")
    refused(
        engram("train", "--run", trained_run.folder),
        1,
        rf"already has a training\nhint: engram train --resume --run {trained_run.folder} goes on",
    )
    assert trained_run.vocab_path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file or folder: FILE"),
        ("", "the corpus is empty"),
        ("one word", "no document of the corpus falls on the validation side\nhint: give more text"),
        (
            "self " * 100,
            "the training side has .* tokens, expected more than one window of 64\nhint: give more",
        ),
        ("a\0b", "FILE is not text"),
    ],
)
def test_a_corpus_that_cannot_be_trained_on_costs_no_training(
    tmp_path: Path, trained_run: Run, text: str | None, message: str
) -> None:
    before, corpus = content(trained_run), tmp_path / "corpus.txt"
    if text is not None:
        corpus.write_text(text)
    done = engram("train", "--force", "--preset", "nano", "--corpus", corpus, "--run", trained_run.folder)
    refused(done, 1, message.replace("FILE", str(corpus)))
    assert content(trained_run) == before
    assert document("generate", "def", "--max-tokens", "2", "--run", trained_run.folder)["tokens"] > 0


def test_a_vocabulary_that_a_model_needs_is_replaced_only_with_the_model(
    tmp_path: Path, trained_run: Run, corpus_path: Path
) -> None:
    run = Run(shutil.copytree(trained_run.folder, tmp_path / "run"))
    build = ("build-vocab", "--corpus", corpus_path, "--size", "300", "--force", "--run", run.folder)
    refused(
        engram(*build), 1, "needs the vocabulary that it was trained with.*\nhint: --force --discard-training replaces both"
    )
    assert content(run) == content(trained_run)
    refused(engram(*build, "--discard-training", "--text-key", "absent"), 1, "no text under")
    assert content(run) == content(trained_run)
    assert engram(*build, "--discard-training").returncode == 0
    assert sorted(path.name for path in run.folder.iterdir()) == ["corpus.json", "tokenizer.json", "vocab.parquet"]
    assert len(run.vocab().tokens) == 300


def test_a_training_says_on_what_it_was_judged_and_what_is_no_control(
    tmp_path: Path, vocab_run: Run, corpus_path: Path
) -> None:
    run = shutil.copytree(vocab_run.folder, tmp_path / "run")
    options = ("train", "--force", "--preset", "nano", "--steps", "2", "--run", run)
    done = engram(*options, "--corpus", corpus_path)
    assert re.search("on [0-9,]+ tokens of [0-9]+ documents that were not trained on, ± one standard error\n", done.stdout)
    assert re.search("with the memory .* ± 0[.][0-9]{4}", done.stdout), done.stdout
    assert "suppressed is not trained without: engram train --no-memory is the control\n" in done.stdout
    (tmp_path / "one.txt").write_text("".join(f"line {i}\n" for i in range(200)))
    (tmp_path / "held.txt").write_text("held out " * 40)
    done = engram(*options, "--no-memory", "--corpus", tmp_path / "one.txt", "--validation", tmp_path / "held.txt")
    assert re.search("on [0-9,]+ tokens of 1 document that were not trained on\n", done.stdout), done.stdout
    assert "suppressed" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--resume", "--steps", "3"],
        ["train", "--preset", "huge"],
        ["train", "--resume", "--preset", "nano"],
        ["train", "--force", "--preset", "nano", "--seed", "9" * 30],
        ["generate", "x", "--temperature", "1", "--seed", "9" * 30],
        ["inspect", "ngram", ""],
        ["hash", "x", "--spec", "none"],
        ["generate", "x", "--offload", "--placement", "disk"],
    ],
)
def test_a_wrong_call_exits_with_two(trained_run: Run, arguments: list[str]) -> None:
    refused(engram(*arguments, "--run", trained_run.folder), 2, "hint: |--resume")


def test_an_occupied_port(trained_run: Run) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = engram("serve", "--port", str(other.getsockname()[1]), "--run", trained_run.folder)
    refused(done, 1, "cannot listen on 127.0.0.1.*\nhint: --port")


def test_a_vocabulary_that_is_not_the_stores(tmp_path: Path, trained_run: Run, corpus_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run.folder, run)
    other = tmp_path / "other"
    assert engram("build-vocab", "--corpus", corpus_path, "--size", "300", "--run", other).returncode == 0
    for name in ("tokenizer.json", "vocab.parquet"):
        shutil.copy(other / name, run / name)
    commands = (["generate", "x"], ["serve", "--port", "0"], ["inspect", "ngram", "x"], ["train", "--resume"])
    for command in (*commands, ["hash", "x"], ["stats", corpus_path]):
        refused(engram(*command, "--run", run), 1, Run(run).spec().vocab_fingerprint)
    assert not (run / "ngrams.parquet").exists()


@pytest.mark.parametrize(
    "damaged", ["model.safetensors", "config.json", "vocab.parquet", "tokenizer.json", "tables.zarr/zarr.json"]
)
def test_a_damaged_file_of_a_run(tmp_path: Path, trained_run: Run, damaged: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run.folder, run)
    content = (run / damaged).read_bytes()
    (run / damaged).write_bytes(content[: len(content) // 2])
    refused(engram("generate", "x", "--run", run), 1, damaged.split("/")[0])


def test_a_full_disk(tmp_path: Path, corpus_path: Path, vocab_run: Run) -> None:
    with largest_file(1000):
        done = engram("build-vocab", "--corpus", corpus_path, "--run", tmp_path / "a")
    refused(done, 1, "File too large")
    assert [path.name for path in (tmp_path / "a").rglob("*")] == []
    run = tmp_path / "b"
    shutil.copytree(vocab_run.folder, run)
    with largest_file(LIMIT_BYTES):
        done = engram("train", "--corpus", corpus_path, "--preset", "nano", "--steps", "4", "--run", run)
    refused(done, 1, "too large|No space")
    assert not list(run.rglob("*.partial"))
    assert not (run / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("command", "began"),
    [
        (["build-vocab", "--run", "new"], "training a byte"),
        (["train", "--preset", "nano", "--steps", "100000", "--corpus", "CORPUS", "--run", "RUN"], "step 0"),
        (["demo", "--run", "new"], "training a byte"),
    ],
)
def test_ctrl_c_leaves_nothing_half_written(
    tmp_path: Path, vocab_run: Run, corpus_path: Path, command: list[str], began: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(vocab_run.folder, run)
    arguments = [{"RUN": str(run), "CORPUS": str(corpus_path)}.get(a, a) for a in command]
    with engram_process(*arguments, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if began in line:
                break
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(60) == 130, said
    assert "Traceback" not in said
    assert re.search("interrupted|stopped and saved", said)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("loading", ["engram_cli.train", "typer", "hashing.base.errors"])
def test_ctrl_c_while_the_commands_are_loaded_is_told_in_a_sentence(loading: str) -> None:
    script = f"""
import sys

class Interrupted:
    def find_spec(self, name, *_):
        if name == "{loading}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from engram_cli.entry import main

main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_the_installed_command_goes_the_same_way_in() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["engram"] == "engram_cli.entry:main"


@pytest.mark.parametrize(("folder", "flag"), [("runs/default", ""), ("runs/mine", " --run runs/mine"), ("a b", " --run 'a b'")])
def test_a_command_for_a_run_names_it(folder: str, flag: str) -> None:
    assert Run(Path(folder)).command("train --resume") == f"engram train --resume{flag}"


def test_hints_name_the_run_and_the_store(tmp_path: Path, trained_run: Run, vocab_run: Run) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run.folder, run)
    train_folder = run / "train"
    shutil.rmtree(run / "tables.zarr")
    refused(engram("generate", "x", "--run", run), 1, f"hint: first run: engram train --resume --run {run}\n")
    shutil.rmtree(train_folder / "tokens")
    refused(engram("train", "--resume", "--run", run), 1, f"hint: first run: engram train --run {run}\n")
    refused(engram("table", "info", "--run", vocab_run.folder), 1, f"hint: first run: engram train --run {vocab_run.folder}\n")
    (run / "vocab.parquet").unlink()
    refused(engram("generate", "x", "--run", run), 1, f"hint: first run: engram build-vocab --run {run}\n")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["table", "verify", "absent"], "no such folder: absent\nhint: name a table store or a checkpoint's folder"),
        (["table", "import", "absent"], "no such file or folder: absent\nhint: name a checkpoint's folder, or a state dict's"),
        (["table", "info", "absent"], "no such table store: absent\nhint: name a store's folder"),
        (
            ["stats", "--counts", "note.txt", "--spec", "tiny"],
            "cannot be read as Parquet.*\nhint: engram stats CORPUS --counts",
        ),
        (["hash", "x", "--spec", "spec.json"], "addresses vocabulary .*\nhint: name the run that it was saved from"),
    ],
)
def test_a_refusal_leads_on(tmp_path: Path, vocab_run: Run, command: list[str], message: str) -> None:
    run = ["--run", str(vocab_run.folder)] if command[0] in {"hash", "stats"} else []
    assert engram("hash", "x", "--spec", "tiny", "--save-spec", "spec.json", "--run", vocab_run.folder, cwd=tmp_path)
    spec = tmp_path / "spec.json"
    spec.write_text(spec.read_text().replace(vocab_run.vocab().fingerprint, "0" * 16))
    (tmp_path / "note.txt").write_text("no counts")
    done = engram(*command, *run, cwd=tmp_path)
    assert done.returncode in {1, 2}
    assert re.search(f"error: .*{message}", done.stderr), done.stderr


def test_what_is_interrupted_says_how_to_go_on(tmp_path: Path, vocab_run: Run, corpus_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(vocab_run.folder, run)
    arguments = ("train", "--preset", "nano", "--steps", "100000", "--corpus", corpus_path, "--run", run)
    with engram_process(*arguments, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "step 0" in line)
        os.killpg(process.pid, signal.SIGINT)
        assert f"hint: engram train --resume --run {run} goes on from there\n" in process.stderr.read()
        assert process.wait(60) == 130
