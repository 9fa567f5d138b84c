"""A swap is a forward pass with the other phrase's vectors at the last position, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.inspect.probes.swap import TOP, probe_swap
from runtime.run import Run
from runtime.trained_run import TrainedRun
from tests.commands import document, engram, refused

A, B = [40, 41, 42, 43], [60, 61]


@pytest.fixture(scope="module")
def trained(trained_run: Run) -> TrainedRun:
    return TrainedRun.load(trained_run, torch.device("cpu"))


@torch.no_grad()
def test_it_is_a_forward_pass_with_the_others_vectors(trained: TrainedRun) -> None:
    lookup = trained.lookup("device")
    assert lookup is not None
    own, other = (lookup.vectors(np.array([ids]))(1) for ids in (A, B))
    assert own is not None
    assert other is not None
    mixed = torch.cat([own[:, :-1], other[:, -1:]], 1)
    before, after = (
        trained.model.logits(torch.tensor([A]), lambda _, vectors=vectors: vectors)[0, -1].log_softmax(-1)
        for vectors in (own, mixed)
    )
    found = probe_swap(trained, A, B)
    assert found.kl_nats == pytest.approx(float((before.exp() * (before - after)).sum()), abs=1e-6)
    assert found.kl_nats > 0
    for change in found.changes:
        assert change.probability_before == pytest.approx(float(before[change.token_id].exp()), abs=1e-6)
        assert change.probability_after == pytest.approx(float(after[change.token_id].exp()), abs=1e-6)
        assert change.token == trained.vocab.texts[change.token_id]
    shown = {change.token_id for change in found.changes}
    assert shown == {*before.topk(TOP).indices.tolist(), *after.topk(TOP).indices.tolist()}
    assert found.gates[1].before != found.gates[1].after


def test_its_own_memory_changes_nothing(trained: TrainedRun) -> None:
    found = probe_swap(trained, A, A, [1])
    assert found.kl_nats == 0
    assert all(change.probability_before == change.probability_after == change.probability_other for change in found.changes)


def test_the_command(trained_run: Run, tmp_path: Path) -> None:
    call = ("probe", "swap", "self.$x$", "def parse(", "--run", trained_run.folder)
    found = document(*call, "--layer", 1, "--plot", tmp_path / "swap.svg")
    assert found["layers"] == [1]
    assert "".join(found["tokens"]) == "self.$x$"
    assert found == document(*call)
    assert "$x$" in (tmp_path / "swap.svg").read_text(), "a dollar in a text begins no formula"
    done = engram(*call)
    assert "KL(before ‖ after)" in done.stdout
    assert "swapped: the memory of layer 1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["", "def"], 2, "a phrase is empty"),
        (["def", ""], 2, "a phrase is empty"),
        (["def", "import", "--layer", "0"], 2, "no memory at layer 0\nhint: this run has memory at 1"),
        (["def", "import", "--plot", "x.gif"], 2, "x.gif would be a picture in an unknown format"),
        (["def", "import", "--plot", "there.png"], 1, "there.png is already there .*\nhint: pass --force"),
    ],
)
def test_what_cannot_be_swapped(trained_run: Run, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "there.png").write_bytes(b"kept")
    done = engram("probe", "swap", *arguments, "--run", trained_run.folder, cwd=tmp_path)
    refused(done, code, message)
    assert done.stdout == ""
    assert (tmp_path / "there.png").read_bytes() == b"kept"
