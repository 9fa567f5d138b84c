"""`engram eval` is a plain sum over a text's tokens, with the memory and with something else in its place."""

import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from hashing.base.errors import UsageError
from hashing.text.corpus import Corpus
from runtime.ablation import in_place_of_rows, intact, mean_rows, named_ablation, suppressed, without_order
from runtime.evaluation import evaluate, variants
from runtime.judged_text import texts_of
from runtime.run import Run
from runtime.train.trainer import Trainer
from runtime.trained_run import TrainedRun
from runtime.windows import CONTEXT, Texts
from table.store.store import TableStore, write_store
from tests.commands import document, engram, refused

TEXT = "def parse(self, name):\n    return self.name\n"


@pytest.fixture(scope="module")
def trained(trained_run: Run) -> TrainedRun:
    return TrainedRun.load(trained_run, torch.device("cpu"))


def plain_logprobs(trained: TrainedRun, ids: list[int], end: int, memory: bool = True) -> list[float]:
    """Of a text that fits in a window: the whole of it at once, after an end-of-text token."""
    given = np.array([[end, *ids[:-1]]], np.int64)
    vectors = trained.lookup("device").vectors(given) if memory else None
    with torch.no_grad():
        logprobs = trained.model.logits(torch.from_numpy(given), vectors)[0].log_softmax(-1)
    return [float(logprobs[i, token]) for i, token in enumerate(ids)]


def test_a_text_is_the_sum_over_its_tokens(trained_run: Run, trained: TrainedRun) -> None:
    tokenizer = trained_run.tokenizer()
    ids, end = tokenizer.encode(TEXT).ids, trained.vocab.end_of_text_id
    assert 10 < len(ids) < trained.config.recipe.length
    found = document("eval", TEXT, "--tokens", "--run", trained_run.folder)
    logprobs = plain_logprobs(trained, ids, end)
    without = plain_logprobs(trained, ids, end, memory=False)
    shown = found["token_logprobs"]
    assert [(token["token_id"], token["text"]) for token in shown] == [(token, 0) for token in ids]
    assert "".join(token["token"] for token in shown) == TEXT
    assert [token["logprob"] for token in shown] == pytest.approx(logprobs, abs=1e-5)
    assert [token["suppressed_logprob"] for token in shown] == pytest.approx(without, abs=1e-5)
    assert (found["tokens"], found["documents"], found["standard_error"]) == (len(ids), 1, None)
    assert found["nats_per_token"] == pytest.approx(-np.mean(logprobs), abs=1e-5)
    assert found["suppressed_nats"] == pytest.approx(-np.mean(without), abs=1e-5)
    assert abs(found["suppressed_nats"] - found["nats_per_token"]) > 1e-3
    assert found["perplexity"] == pytest.approx(math.exp(-np.mean(logprobs)), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(-sum(logprobs) / math.log(2) / len(TEXT.encode()), rel=1e-4)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(1, 40))
def test_every_token_of_a_text_is_judged_once_in_order_with_half_a_window_before_it(lengths: list[int], length: int) -> None:
    """Token number i of a text has the id i + 1, and the end-of-text token is 0."""
    windows = Texts([range(1, count + 1) for count in lengths], length, end_id=0)
    judged: list[tuple[int, int]] = []
    blocks = list(windows)
    assert len(blocks) == windows.blocks
    for block in blocks:
        assert (block.targets == block.inputs + 1).all()
        for inputs, targets, documents in zip(block.inputs, block.targets, block.documents, strict=True):
            for position in np.flatnonzero(documents != CONTEXT):
                judged.append((int(documents[position]), int(targets[position])))
                seen = targets[position] - inputs[0]  # tokens before this one, the end-of-text token among them
                assert seen >= min(targets[position], (length + 1) // 2)
    assert judged == [(number, token) for number, count in enumerate(lengths) for token in range(1, count + 1)]


def test_a_long_text_is_judged_in_windows(trained_run: Run, trained: TrainedRun, tmp_path: Path) -> None:
    """A loop over windows of the training's length that begin every half window."""
    tokenizer, length = trained_run.tokenizer(), trained.config.recipe.length
    text = "".join(f"class A{i}(Base):\n    def run{i}(self):\n        return {i * i}\n" for i in range(40))
    (tmp_path / "long.txt").write_text(text)
    ids, end = tokenizer.encode(text).ids, trained.vocab.end_of_text_id
    stream, logprobs = [end, *ids], []
    starts = [*range(0, len(ids) - length, length // 2), len(ids) - length]
    for start in starts:
        window = plain_logprobs(trained, stream[start + 1 : start + length + 1], stream[start])
        logprobs += window[len(logprobs) - start :]
    assert len(logprobs) == len(ids) > 10 * length
    found = document("eval", tmp_path / "long.txt", "--run", trained_run.folder)
    assert found["tokens"] == len(ids)
    assert found["nats_per_token"] == pytest.approx(-np.mean(logprobs), abs=1e-5)


def test_the_validation_side_is_what_training_measured(trained_run: Run) -> None:
    measured = json.loads((trained_run.train_folder / "metrics.jsonl").read_text().splitlines()[-1])
    call = ("eval", "--run", trained_run.folder, "--max-tokens", Trainer.resume(trained_run).validation_tokens)
    found = document(*call, "--without", "layer:1", "--without", "order:2")
    assert found["nats_per_token"] == pytest.approx(measured["validation_nats"], rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(measured["bits_per_byte"], rel=1e-6)
    assert found["documents"] > 10
    assert 0 < found["suppressed_difference_error"] < found["standard_error"]
    layer, order = found["without"]
    assert (layer["name"], order["name"]) == ("layer:1", "order:2")
    assert layer["nats"] == found["suppressed_nats"], "the run has one layer with a memory"
    assert layer["difference_nats"] == pytest.approx(found["suppressed_nats"] - found["nats_per_token"], abs=1e-9)
    assert order["nats"] not in {found["nats_per_token"], layer["nats"]}
    sampled = document("eval", "--run", trained_run.folder, "--max-tokens", 256)
    assert sampled["tokens"] == 256


def test_an_order_left_out_is_its_rows_being_zero(trained_run: Run, trained: TrainedRun, tmp_path: Path) -> None:
    """The rows of an order's heads are zeroed in a copy of the tables, and the copy is read in the ordinary way."""
    store = TableStore.open(trained_run.tables_path)
    spec, tables = store.spec, {layer: store.layer(layer).copy() for layer in store.spec.layers}
    order = spec.orders[-1]
    for layer, table in tables.items():
        columns = range((order - 2) * spec.heads, (order - 1) * spec.heads)
        for column in columns:
            table[spec.offsets(layer)[column] :][: spec.moduli(layer)[column]] = 0
    zeroed = write_store(tmp_path / "zeroed.zarr", spec, store.mapping, tables, store.step)
    ids = np.arange(30, 60)[None]
    left_out = without_order(spec, order)(trained.lookup("device").vectors(ids))
    expected = trained.lookup("device", zeroed).vectors(ids)
    for layer in spec.layers:
        found, read, own = left_out(layer), expected(layer), trained.lookup("device").vectors(ids)(layer)
        assert found is not None
        assert read is not None
        assert own is not None
        assert torch.equal(found, read)
        assert not torch.equal(found, own)


def test_the_mean_row_is_that_of_each_head(trained_run: Run, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in pieces smaller than a head; and of a table too large, from the first rows of each head."""
    store = TableStore.open(trained_run.tables_path)
    layer, spec = store.spec.layers[0], store.spec
    table = np.array(store.layer(layer), np.float64)
    heads = list(zip(spec.offsets(layer), spec.moduli(layer), strict=True))
    monkeypatch.setattr("runtime.ablation.PIECE_ROWS", 700)
    expected = np.concatenate([table[first : first + rows].mean(0) for first, rows in heads])
    assert mean_rows(trained.tables, spec)[layer] == pytest.approx(expected, abs=1e-7)
    monkeypatch.setattr("runtime.ablation.MEAN_ROWS", 50 * spec.columns)
    sampled = np.concatenate([table[first : first + 50].mean(0) for first, _ in heads])
    assert mean_rows(trained.tables, spec)[layer] == pytest.approx(sampled, abs=1e-7)
    vectors = in_place_of_rows({layer: expected.astype(np.float32)})(trained.lookup("device").vectors(np.arange(12)[None]))
    found = vectors(layer)
    assert found is not None
    assert found.shape == (1, 12, len(expected))
    assert torch.equal(found[0, 3], torch.from_numpy(expected.astype(np.float32)))


def test_ablations_change_nothing_but_what_they_name(trained: TrainedRun) -> None:
    lookup = trained.lookup("device")
    vectors, spec = lookup.vectors(np.arange(9)[None]), lookup.addressing.spec
    assert intact(vectors) is vectors
    assert suppressed(vectors) is None  # type: ignore[func-returns-value]
    without_layer = named_ablation("layer:1", spec)(vectors)
    assert without_layer is not None
    assert without_layer(1) is None
    assert without_order(spec, 2)(without_layer)(1) is None


def test_a_model_without_memory_has_one_line(trained: TrainedRun) -> None:
    memoryless = replace(trained, store=None, tables={})
    with pytest.raises(UsageError, match="trained without memory: there is no 'layer:1' to leave out"):
        variants(memoryless, ["layer:1"])
    compared = variants(memoryless)
    assert list(compared) == ["without memory"]
    texts = Texts([[5, 6, 7], [8, 9]], 64, 0)
    found = evaluate(trained.model, "float32", None, texts, compared)
    given = torch.tensor([[0, 5, 6]]), torch.tensor([[0, 8]])
    with torch.no_grad():
        logits = [trained.model.logits(ids, None)[0] for ids in given]
    expected = [
        functional.cross_entropy(each, torch.tensor(ids), reduction="sum")
        for each, ids in zip(logits, texts.texts, strict=True)
    ]
    assert found.losses["without memory"].nats_per_token == pytest.approx(float(sum(expected)) / 5, rel=1e-5)


def test_files_folders_and_standard_input_are_read(trained_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": TEXT}) + "\n" + json.dumps({"text": "import os"}) + "\n")
    alone = document("eval", TEXT, "--run", trained_run.folder)
    assert document("eval", "a.txt", "--run", trained_run.folder, cwd=tmp_path) == alone
    folder = document("eval", tmp_path, "--run", trained_run.folder)
    assert folder["documents"] == 3
    assert folder["standard_error"] > 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert document("eval", "-", "--run", trained_run.folder) == alone


def test_files_are_read_as_the_options_say_and_what_is_passed_over_is_told(trained_run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT + "é", encoding="latin-1")
    (tmp_path / "b.jsonl").write_text(json.dumps({"body": TEXT}) + "\n")
    (tmp_path / "c.txt").write_text(TEXT)
    done = engram("eval", tmp_path, "--json", "--run", trained_run.folder)
    assert json.loads(done.stdout)["documents"] == 1
    assert "passed over 1 file, not UTF-8" in done.stderr
    assert "b.jsonl:1 has no text" in done.stderr
    done = engram("eval", tmp_path, "--encoding", "latin-1", "--text-key", "body", "--json", "--run", trained_run.folder)
    assert json.loads(done.stdout)["documents"] == 3
    assert "passed over" not in done.stderr
    assert "split" not in done.stderr


def test_a_file_longer_than_a_document_is_one_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hashing.text.corpus.MAX_DOCUMENT_CHARS", 100)
    text = "".join(f"line {i} of the text\n" for i in range(50))
    (tmp_path / "a.txt").write_text(text)
    assert len(list(Corpus((tmp_path / "a.txt",)).documents())) > 5
    assert list(texts_of(Corpus((tmp_path / "a.txt",)))) == [(str(tmp_path / "a.txt"), text)]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([""], 2, "a text is empty"),
        (["empty.txt"], 1, "empty"),
        (["binary.bin"], 1, "binary.bin is not"),
        (["missing.txt"], 2, "no such file or folder: missing.txt\nhint: "),
        (["some/where"], 2, "no such file or folder: some/where"),
        (["a text", "--max-tokens", "9"], 2, "--max-tokens is for the validation side"),
        (["--tokens"], 2, "--tokens shows the tokens of a text"),
        (["--encoding", "latin-1"], 2, "--encoding is for reading files, but none is given"),
        (["a text", "--encoding", "latin-1", "binary.bin"], 1, "binary.bin is neither UTF-8 text nor text in latin-1"),
        (["a text", "--without", "layer:0"], 2, "no 'layer:0' to leave out\nhint: this run has layer:1, order:2, order:3"),
        (["a text", "--without", "3"], 2, "no '3' to leave out"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    trained_run: Run, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.bin").write_bytes(b"\x7fELF\0\0\xff")
    done = engram("eval", *arguments, "--run", trained_run.folder, cwd=tmp_path)
    refused(done, code, message)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff\xfe", "is not UTF-8 text: byte 0xff"), (b"a\0b", "NUL"), (b"", "empty")]
)
def test_standard_input_that_is_no_text(
    trained_run: Run, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    refused(engram("eval", "-", "--run", trained_run.folder), 1, f"standard input .*{message}")


def test_a_text_that_the_tokenizer_does_not_keep_is_noted(tmp_path: Path, trained_run: Run) -> None:
    """The run's tokenizer is given a normaliser that lowers case."""
    from shutil import copytree

    from tokenizers import Tokenizer, normalizers

    copytree(trained_run.folder, tmp_path / "run")
    tokenizer = Tokenizer.from_file(str(trained_run.tokenizer_path))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(tmp_path / "run" / "tokenizer.json"))
    assert "loses characters of 'CLASS A'" in engram("eval", "CLASS A", "--run", tmp_path / "run").stderr
    assert "loses characters" not in engram("eval", "class a", "--run", tmp_path / "run").stderr


def test_what_a_person_reads(trained_run: Run) -> None:
    done = engram("eval", "def a", "self.b", "--tokens", "--without", "order:3", "--run", trained_run.folder)
    assert done.returncode == 0, done.stderr
    assert "Tokens of 'def a', in nats" in done.stdout
    named = ("with the memory", "memory suppressed", "mean row in place", "without order:3")
    assert all(name in done.stdout for name in named), done.stdout
    assert "not what a model trained without one would reach" in done.stderr
