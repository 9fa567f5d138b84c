"""Gates are those of a forward pass, and their statistics those of numpy over a loop."""

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.inspect.probes.gate_statistics import JudgedGates, probe_gates
from runtime.inspect.probes.probed_text import probed_text
from runtime.model.points import watching
from runtime.run import Run
from runtime.trained_run import TrainedRun
from tests.commands import document, engram


@pytest.fixture(scope="module")
def trained(trained_run: Run) -> TrainedRun:
    return TrainedRun.load(trained_run, torch.device("cpu"))


def test_they_are_those_of_a_forward_pass(trained_run: Run, trained: TrainedRun) -> None:
    windows = probed_text(trained_run, trained, [], 512)
    found = JudgedGates.of(trained, windows, lambda _: None)
    seen: list[Tensor] = []
    for block in windows:
        vectors = trained.lookup("device").vectors(block.inputs)  # type: ignore[union-attr]
        keep = lambda name, value: seen.append(value.flatten()) if name.endswith("gate") else None  # noqa: E731
        with torch.no_grad(), watching(trained.model, keep):
            logits = trained.model.logits(torch.from_numpy(block.inputs), vectors)
    assert found.gates[1].shape == (512, 1)
    assert found.gates[1][:, 0] == pytest.approx(torch.cat(seen).numpy(), abs=1e-6)
    nats = -logits.log_softmax(-1).gather(-1, torch.from_numpy(block.targets)[..., None]).flatten()
    assert found.loss_nats[-len(nats) :] == pytest.approx(nats.numpy(), abs=1e-4)


def test_statistics_are_over_the_same_positions(trained_run: Run, trained: TrainedRun) -> None:
    windows = probed_text(trained_run, trained, [], 2048)
    gates = JudgedGates.of(trained, windows, lambda _: None)
    view = probe_gates(trained, windows, None)
    (stream,) = view.streams
    gate, saved = gates.gates[1][:, 0], gates.suppressed_nats - gates.loss_nats
    assert stream.whole.mean == pytest.approx(gate.mean(), rel=1e-5)
    assert stream.whole.quartiles == pytest.approx(np.percentile(gate, (25, 50, 75)), rel=1e-5)
    assert list(stream.splits) == list(view.titles) == ["class", "loss", "saved"]
    for parts in stream.splits.values():
        assert sum(part.positions for part in parts) == view.positions == 2048
        mean = sum(part.positions * part.mean for part in parts) / view.positions
        assert mean == pytest.approx(stream.whole.mean)
    lowest = np.sort(saved)[: 2048 // 4]
    assert stream.splits["saved"][0].mean == pytest.approx(gate[saved <= lowest[-1]].mean(), rel=1e-5)
    assert {one.name: one.positions for one in stream.correlations} == {"loss": 2048, "saved": 2048}


def test_the_command(trained_run: Run) -> None:
    found = document("probe", "gates", "--tokens", 512, "--run", trained_run.folder)
    assert (found["positions"], found["streams"][0]["layer"], found["streams"][0]["stream"]) == (512, 1, 0)
    done = engram("probe", "gates", "--tokens", 512, "--run", trained_run.folder)
    for shown in ("Gates at 512 tokens of", "By token at the position", "white space", "Rank correlation", "Spearman"):
        assert shown in done.stdout
    assert "no ngrams.parquet" in done.stderr
