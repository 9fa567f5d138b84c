"""What `engram inspect ngram` and `row` add from a run's model is what its lens and its gates say."""

import pytest
import torch

from runtime.inspect.lens import ValueLens
from runtime.inspect.occurrences import gates_of_ngrams, row_contexts
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun
from tests.commands import document, engram


@pytest.fixture(scope="module")
def trained(counted_run: Run) -> TrainedRun:
    return TrainedRun.load(counted_run, torch.device("cpu"))


def test_lenses_and_gates_of_a_phrase(counted_run: Run, trained: TrainedRun) -> None:
    call = ("inspect", "ngram", "is not None", "--run", counted_run.folder)
    told, plain = document(*call), document(*call, "--no-lens")
    tokens, lens = Tokens.open(counted_run.train_folder / "tokens"), ValueLens(trained)
    for layer, of_layer in told["layers"].items():
        rows = [row for order in of_layer["orders"].values() for row in order["rows"]]
        assert of_layer["lens"] == lens.of_rows(int(layer), rows).to_json()
        for n, order in of_layer["orders"].items():
            assert order["lens"] == lens.of_rows(int(layer), order["rows"]).to_json()
            ngram = tuple(told["canonical_ids"][-int(n) :])
            gates = gates_of_ngrams(trained, tokens, [ngram])[ngram].get(int(layer))
            assert order["gate_quartiles"] == (gates.to_json() if gates else None)
            without = plain["layers"][layer]["orders"][n]
            assert {**order, "lens": None, "gate_quartiles": None} == without
    shown = engram(*call).stdout
    assert "what its vectors push" in shown
    assert "Gates where the training side has the n-gram" in shown


def test_every_token_has_its_lens(counted_run: Run, trained: TrainedRun) -> None:
    told = document("inspect", "ngram", "is not None", "--all", "--run", counted_run.folder)
    first = told["positions"][0]["layers"]["1"]["orders"]["2"]
    assert first["lens"] == ValueLens(trained).of_rows(1, first["rows"]).to_json()
    assert told["positions"][-1]["layers"] == told["layers"]


def test_lens_and_contexts_of_a_row(counted_run: Run, trained: TrainedRun) -> None:
    row = document("inspect", "ngram", "self.", "--no-lens", "--run", counted_run.folder)["layers"]["1"]["orders"]["2"]["rows"][
        0
    ]
    call = ("inspect", "row", 1, row, "--run", counted_run.folder)
    told, tokens = document(*call), Tokens.open(counted_run.train_folder / "tokens")
    assert told["lens"] == ValueLens(trained).of_rows(1, [row]).to_json()
    assert told["contexts"] == row_contexts(trained, tokens, [(1, row)])[1, row].to_json()
    assert "Where the gate opens widest" in engram(*call).stdout
