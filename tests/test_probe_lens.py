"""The logit lens by its definition: every block's output through the final norm and the head, in a forward pass of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from runtime.inspect.probes.bootstrap import mean_interval
from runtime.inspect.probes.logit_lens import divergences, probe_lens
from runtime.inspect.probes.probed_text import probed_text
from runtime.model.points import watching
from runtime.run import Run
from runtime.trained_run import TrainedRun
from runtime.windows import Side
from tests.commands import document, engram


@pytest.fixture(scope="module")
def trained(trained_run: Run) -> TrainedRun:
    return TrainedRun.load(trained_run, torch.device("cpu"))


@pytest.fixture(scope="module")
def windows(trained_run: Run, trained: TrainedRun) -> Side:
    found = probed_text(trained_run, trained, [], 1024)
    assert isinstance(found, Side)
    return found


@torch.no_grad()
def by_definition(trained: TrainedRun, windows: Side, point: str, memory: bool) -> np.ndarray:
    """(P,) KL(final ‖ what a point shows), by torch's own divergence."""
    pieces = []
    for block in windows:
        seen: dict[str, Tensor] = {}
        vectors = trained.lookup("device").vectors(block.inputs) if memory else None  # type: ignore[union-attr]
        with watching(trained.model, lambda name, value, seen=seen: seen.update({name: value})):  # type: ignore[misc]
            final = trained.model.logits(torch.from_numpy(block.inputs), vectors).log_softmax(-1)
        shown = trained.model.head(trained.model.norm(seen[point])).log_softmax(-1)
        pieces.append(functional.kl_div(shown, final, reduction="none", log_target=True).sum(-1).flatten())
    return torch.cat(pieces).double().numpy()


def test_it_is_the_divergence_of_each_blocks_output(trained: TrainedRun, windows: Side) -> None:
    found = probe_lens(trained, windows)
    documents = np.concatenate([block.documents.ravel() for block in windows])
    assert [state.state for state in found.states] == ["embedding", "block 0", "block 1"]
    assert (found.tokens, found.documents) == (1024, len(np.unique(documents)))
    for state, point in zip(found.states, ("blocks.0.in", "blocks.0.out", "blocks.1.out"), strict=True):
        own, suppressed = (by_definition(trained, windows, point, memory) for memory in (True, False))
        assert state.nats == pytest.approx(own.mean(), abs=1e-5)
        assert state.suppressed_nats == pytest.approx(suppressed.mean(), abs=1e-5)
        assert state.difference_nats == pytest.approx((suppressed - own).mean(), abs=1e-5)
        assert state.difference_ci95 == pytest.approx(mean_interval(documents, suppressed - own), abs=1e-5)


def test_it_is_zero_at_the_end_and_not_before(trained: TrainedRun, windows: Side) -> None:
    *before, last = probe_lens(trained, windows).states
    assert (last.nats, last.suppressed_nats, last.ci95) == (0.0, 0.0, (0.0, 0.0))
    assert all(state.nats > 1e-3 and state.suppressed_nats > 1e-3 for state in before)
    assert before[0].nats == pytest.approx(before[0].suppressed_nats, rel=0.5), "both begin from the same embedding"


def test_it_is_taken_a_few_positions_at_a_time(trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [torch.randn(50, trained.config.model.hidden, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    whole = divergences(trained.model, states)
    monkeypatch.setattr("runtime.inspect.probes.logit_lens.LOSS_POSITIONS", 7)
    assert divergences(trained.model, states) == pytest.approx(whole, abs=1e-5)


def test_the_command(trained_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "lens.png"
    found = document("probe", "lens", "--tokens", 512, "--plot", path, "--run", trained_run.folder)
    assert found["direction"].startswith("KL(final || state)")
    assert [state["state"] for state in found["states"]] == ["embedding", "block 0", "block 1"]
    assert path.read_bytes().startswith(b"\x89PNG")
    done = engram("probe", "lens", "--tokens", 512, "--run", trained_run.folder)
    assert "KL(final ‖ block), nats per token; 512 tokens of" in done.stdout
