"""Metrics are cut by step, whatever lines a file has, and go to TensorBoard where that is installed."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hashing.base.errors import EngramError
from runtime.train.metrics import Metrics, MetricsWriter


def line(step: int, **more: object) -> str:
    return json.dumps({"step": step, "loss_nats": 1.0 / step, **more}) + "\n"


def steps(metrics: Metrics) -> list[int]:
    return [found["step"] for found in metrics.lines()]


def test_steps_that_will_be_taken_again_are_forgotten_by_their_numbers(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.path.write_text(line(1) + line(2) + line(2) + line(4) + line(5))  # as two writers at once once left it
    metrics.forget_after(4)
    assert steps(metrics) == [1, 2, 2, 4]


def test_a_last_line_that_was_cut_short_is_forgotten(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.path.write_text(line(1) + line(2)[:9])
    assert steps(metrics) == [1]
    metrics.forget_after(10)
    assert metrics.path.read_text() == line(1)


@pytest.mark.parametrize("wrong", ["{}\n", "[3]\n", "step 2\n", '{"step": "2"}\n'])
def test_another_line_that_is_none_is_refused(tmp_path: Path, wrong: str) -> None:
    metrics = Metrics(tmp_path)
    metrics.path.write_text(line(1) + wrong + line(3))
    with pytest.raises(EngramError, match="line 2"):
        steps(metrics)


def test_what_is_written_is_there_at_once(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    writer = MetricsWriter(metrics, 0)
    writer.write({"step": 1, "loss_nats": 2.5})
    assert steps(metrics) == [1]
    writer.close()


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    writer = MetricsWriter(Metrics(tmp_path), 0)
    for step in (1, 2, 3):
        writer.write({"step": step, "loss_nats": 1.0 / step, "tokens_per_sec": 10.0, "sample": "a text"})
    writer.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss_nats")] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
