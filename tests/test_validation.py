"""The validation loss: over a fair sample of the whole side, with an error; and with other tables in place of a run's own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus
from runtime.document_mean import DocumentMean
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.tokens_writer import encoded_corpus
from runtime.train.trainer import Trainer
from runtime.trained_run import TrainedRun
from runtime.validation import VALIDATION_TOKENS, validate, validate_stores, validation_budget
from runtime.windows import Side, sample
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore, create_store, write_store
from tests.commands import document


def test_its_own_tables_give_what_training_measured(trained_run: Run) -> None:
    measured = json.loads((trained_run.train_folder / "metrics.jsonl").read_text().splitlines()[-1])
    judged = Trainer.resume(trained_run).validation_tokens
    (found,) = validate_stores(trained_run, [TableStore.open(trained_run.tables_path)], judged)
    assert found.nats_per_token == measured["validation_nats"]
    assert found.bits_per_byte == measured["bits_per_byte"]


def test_rows_of_zeros_are_no_memory(trained_run: Run, tmp_path: Path) -> None:
    own = TableStore.open(trained_run.tables_path)
    zeros = {layer: np.zeros((own.spec.rows(layer), own.head_dim), np.float32) for layer in own.spec.layers}
    write_store(tmp_path / "zeros.zarr", own.spec, own.mapping, zeros, own.step)
    trainer = Trainer.resume(trained_run)
    without = trainer.validate(memory=False)
    stores = [own, TableStore.open(tmp_path / "zeros.zarr")]
    own_loss, zero_loss = validate_stores(trained_run, stores, trainer.validation_tokens)
    assert zero_loss.nats_per_token == pytest.approx(without.nats_per_token, rel=1e-6)
    assert abs(zero_loss.nats_per_token - own_loss.nats_per_token) > 1e-4


def test_tables_of_another_training_are_not_judged(trained_run: Run, tmp_path: Path) -> None:
    own = TableStore.open(trained_run.tables_path)
    fresh = create_store(tmp_path / "fresh.zarr", own.spec, own.mapping, ENCODINGS["float32"], own.head_dim)
    assert validate_stores(trained_run, [own, fresh]) == []
    assert validate_stores(Run(tmp_path), [own]) == []


def test_convert_reports_the_change(trained_run: Run, tmp_path: Path) -> None:
    def convert(*arguments: object) -> dict[str, Any]:
        return document("table", "convert", *arguments)

    report = convert("--run", trained_run.folder, "--encoding", "int4", "--out", tmp_path / "int4.zarr")
    before, after = report["validation"]["before"], report["validation"]["after"]
    assert 0 < abs(after["nats_per_token"] - before["nats_per_token"]) < 0.1 * before["nats_per_token"]
    assert after["bits_per_byte"] / before["bits_per_byte"] == pytest.approx(after["nats_per_token"] / before["nats_per_token"])
    int4 = tmp_path / "int4.zarr"
    again = convert(int4, "--run", trained_run.folder, "--encoding", "float32", "--out", tmp_path / "f.zarr")
    assert again["validation"]["before"] == again["validation"]["after"] == after
    alone = convert(int4, "--run", tmp_path, "--encoding", "int8", "--out", tmp_path / "i.zarr")
    assert alone["validation"] is None


@pytest.fixture(scope="module")
def large_side(tmp_path_factory: pytest.TempPathFactory, trained_run: Run) -> Tokens:
    """A validation side of more than VALIDATION_TOKENS, whose documents get harder from the first to the last."""
    folder = tmp_path_factory.mktemp("large")
    random = np.random.default_rng(0)
    words = ["def", "self", "return", "name", "value", "None"]
    with (folder / "texts.jsonl").open("w") as file:
        for number in range(5_500):
            hard = random.random(200) < number / 5_500  # characters that no source is made of, in place of a word
            text = " ".join("".join(random.choice(list("QZXJ%&?7"), 4)) if h else random.choice(words) for h in hard)
            file.write(json.dumps({"text": f"{number} {text}"}) + "\n")
    corpus = Corpus((folder / "texts.jsonl",))
    with encoded_corpus(folder / "encoded", corpus, trained_run.tokenizer(), 0) as encoded:
        return encoded.place(folder / "tokens")


def test_the_whole_validation_side_is_kept_with_its_documents(trained_run: Run, corpus_path: Path, large_side: Tokens) -> None:
    assert large_side.counts["validation"] > VALIDATION_TOKENS
    small = Tokens.open(trained_run.train_folder / "tokens")
    texts = [d.text for d in Corpus((corpus_path,)).documents() if d.side == "validation"]
    tokenizer = trained_run.tokenizer()
    encoded = [[*tokenizer.encode(text, add_special_tokens=False).ids, 0] for text in texts]
    ids, ends = small.ids("validation"), small.document_ends("validation")
    assert ends is not None
    assert [list(part) for part in np.split(ids, ends[:-1])] == encoded
    assert small.documents == {"train": len(list(Corpus((corpus_path,)).documents())) - len(texts), "validation": len(texts)}


def test_a_folder_of_tokens_that_does_not_know_its_documents_is_read(tmp_path: Path, trained_run: Run) -> None:
    """What version 0.1 wrote. Windows stand in for documents in the error, and no number of documents is given."""
    current, old = trained_run.train_folder / "tokens", tmp_path / "tokens"
    old.mkdir()
    for side in ("train", "validation"):
        (old / f"{side}.bin").write_bytes((current / f"{side}.bin").read_bytes())
    content = json.loads((current / "tokens.json").read_text())
    (old / "tokens.json").write_text(json.dumps({key: content[key] for key in ("counts", "text_bytes")}))
    trained = TrainedRun.load(trained_run, torch.device("cpu"))
    found, expected = (validate(trained.model, Tokens.open(folder), 64, "float32", None) for folder in (old, current))
    assert found.nats_per_token == pytest.approx(expected.nats_per_token, rel=1e-12)
    assert (found.documents, found.tokens, found.bits_per_byte) == (None, expected.tokens, expected.bits_per_byte)
    assert found.standard_error is not None
    assert found.standard_error > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "is of format 3; this version reads formats 1 and 2"),
        ({"documents": {"train": 3, "validation": 1}}, "documents.bin has .* bytes, expected"),
        ({"documents": {"train": 3}}, "documents lacks validation"),
        ({"text_bytes": {"train": 3, "validation": 0}}, "validation is 0, expected 1"),
    ],
)
def test_tokens_that_lie_are_refused(tmp_path: Path, trained_run: Run, change: dict[str, Any], message: str) -> None:
    for file in (trained_run.train_folder / "tokens").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / "tokens.json").read_text())
    (tmp_path / "tokens.json").write_text(json.dumps(content | change))
    with pytest.raises(EngramError, match=message):
        Tokens.open(tmp_path)


def test_documents_that_do_not_end_where_the_tokens_do_are_refused(tmp_path: Path, trained_run: Run) -> None:
    for file in (trained_run.train_folder / "tokens").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    ends = np.fromfile(tmp_path / "validation.documents.bin", "<i8")
    (ends - 1).tofile(tmp_path / "validation.documents.bin")
    with pytest.raises(EngramError, match=r"ends at token .*, expected"):
        Tokens.open(tmp_path).document_ends("validation")


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 2**63))
def test_a_smaller_sample_is_part_of_a_larger_one(windows: int, one: int, other: int, key: int) -> None:
    small, large = (sample(windows, count, key) for count in sorted((one, other)))
    assert set(small) <= set(large)
    assert len(small) == min(windows, one, other)
    assert (np.diff(small) > 0).all()
    assert 0 <= small[0] <= small[-1] < windows


def test_every_window_is_as_likely_as_any_other() -> None:
    """Over many keys each of 40 windows is drawn as often as each other, by a chi-square of 39 degrees of freedom."""
    keys = 20_000
    drawn = np.zeros(40)
    for key in np.random.default_rng(1).integers(0, 2**62, keys):
        drawn[sample(40, 10, int(key))] += 1
    expected = keys * 10 / 40
    chi_square = float(((drawn - expected) ** 2 / (expected * (1 - 10 / 40))).sum() * 39 / 40)
    assert 16 < chi_square < 73  # 99.9 % of the distribution on either side


def test_the_sample_stands_for_the_whole_side(trained_run: Run, large_side: Tokens) -> None:
    """Documents that get harder throughout: its first tokens are far too easy, a fair sample is not."""
    trained = TrainedRun.load(trained_run, torch.device("cpu"))
    lookup, length = trained.lookup("device"), trained.config.recipe.length
    whole = validate(trained.model, large_side, length, "float32", lookup, large_side.counts["validation"])
    sampled = validate(trained.model, large_side, length, "float32", lookup, 1 << 12)
    assert sampled.tokens == 1 << 12
    assert sampled.documents is not None
    assert whole.documents is not None
    assert large_side.documents is not None
    assert sampled.documents > 50
    assert whole.documents == large_side.documents["validation"]
    assert sampled.standard_error is not None
    assert abs(sampled.nats_per_token - whole.nats_per_token) < 3 * sampled.standard_error
    first = np.concatenate([block.documents.ravel() for block in Side(large_side, length, 10**9)])[: 1 << 12]
    assert len(np.unique(first)) < sampled.documents
    begin = _plain_loss(trained, large_side.ids("validation")[: (1 << 12) + 1])
    assert whole.nats_per_token - begin > 5 * sampled.standard_error


def _plain_loss(trained: TrainedRun, ids: np.ndarray[Any, Any]) -> float:
    """Window by window, all logits at once."""
    length, lookup = trained.config.recipe.length, trained.lookup("device")
    losses = []
    for start in range(0, len(ids) - length, length):
        window = ids[None, start : start + length + 1].astype(np.int64)
        with torch.no_grad():
            logits = trained.model.logits(torch.from_numpy(window[:, :-1].copy()), lookup.vectors(window[:, :-1]))
        losses.append(functional.cross_entropy(logits[0], torch.from_numpy(window[0, 1:]), reduction="none").numpy())
    return float(np.concatenate(losses).mean(dtype=np.float64))


def test_the_whole_side_is_a_plain_loop_over_it(trained_run: Run) -> None:
    trained, tokens = TrainedRun.load(trained_run, torch.device("cpu")), Tokens.open(trained_run.train_folder / "tokens")
    found = validate(trained.model, tokens, trained.config.recipe.length, "float32", trained.lookup("device"))
    expected = _plain_loss(trained, tokens.ids("validation"))
    assert found.nats_per_token == pytest.approx(expected, rel=1e-6)
    per_byte = tokens.counts["validation"] / tokens.text_bytes["validation"]
    assert found.bits_per_byte == pytest.approx(expected / np.log(2) * per_byte, rel=1e-6)


def test_the_error_of_documents_of_one_length_is_that_of_their_means() -> None:
    random = np.random.default_rng(0)
    losses = random.normal(size=(30, 1)) + random.normal(size=(30, 50))
    found = DocumentMean(40)
    order = random.permutation(losses.size)
    for part in np.array_split(order, 7):  # in pieces, documents mixed
        found.add(part // 50, losses.ravel()[part])
    assert (found.tokens, found.documents) == (1500, 30)
    assert found.mean == pytest.approx(losses.mean())
    assert found.standard_error == pytest.approx(losses.mean(1).std(ddof=1) / np.sqrt(30))
    assert found.standard_error > 3 * losses.std() / np.sqrt(losses.size), "tokens of a document are alike"


def test_the_error_is_that_of_drawing_other_documents() -> None:
    """A bootstrap over documents of very different lengths, long ones being harder."""
    random = np.random.default_rng(0)
    lengths = random.integers(1, 400, 150)
    losses = [random.normal(length / 200, 1, length) for length in lengths]
    found = DocumentMean(len(losses))
    found.add(np.repeat(np.arange(len(losses)), lengths), np.concatenate(losses))
    sums = np.array([values.sum() for values in losses])
    drawn = random.integers(0, len(losses), (4000, len(losses)))
    means = sums[drawn].sum(1) / lengths[drawn].sum(1)
    assert found.standard_error == pytest.approx(means.std(), rel=0.05)


def test_one_document_has_no_error() -> None:
    found = DocumentMean(3)
    found.add(np.array([2, 2]), np.array([1.0, 2.0]))
    assert (found.mean, found.standard_error) == (1.5, None)


@pytest.mark.parametrize(
    ("between", "expected"), [(1, 2048), (5120, 2048), (40_000, 10_000), (10**6, 65_536)], ids=lambda value: str(value)
)
def test_a_validation_takes_a_share_of_the_training_s_tokens(between: int, expected: int) -> None:
    assert validation_budget(between) == expected


def test_logits_are_made_for_fewer_positions_with_a_large_vocabulary(trained_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are cut, the losses are the same, and never more logits are made than LOSS_LOGITS."""
    model = TrainedRun.load(trained_run, torch.device("cpu")).model
    ids, targets = torch.arange(96).view(2, 48), torch.arange(1, 97).view(2, 48)
    made: list[int] = []
    model.head.register_forward_hook(lambda _, __, logits: made.append(logits.numel()))
    with torch.no_grad():
        whole = functional.cross_entropy(model.logits(ids, None).flatten(0, 1), targets.flatten(), reduction="none").view(2, 48)
        for pieces in (1, 7, 96):
            made.clear()
            monkeypatch.setattr("runtime.model.language_model.LOSS_LOGITS", pieces * model.config.vocab_size)
            torch.testing.assert_close(model.token_losses(ids, targets, None), whole)
            torch.testing.assert_close(model.loss(ids, targets, None), whole.mean())
            assert max(made) == pieces * model.config.vocab_size
