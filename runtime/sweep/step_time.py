"""StepTime: how long a training step of a sweep's first arm takes, beside one of the same model without memory.

    python -m runtime.sweep.step_time SWEEP_FOLDER ARM

On a CPU it is the time that one thread works, and the two take turns, so that other work on the machine decides nothing.
"""

import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hashing.base.atomic import write_text
from hashing.base.json_object import read_json
from runtime.settings import Settings
from runtime.sweep.folder import SweepFolder
from runtime.train.trainer import Trainer

TURNS = 12
STEPS_A_TURN = 4
WARM_UP_STEPS = 4
MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class StepTime:
    """Medians over turns."""

    memory_sec: float
    none_sec: float

    @property
    def ratio(self) -> float:
        return self.memory_sec / self.none_sec

    @classmethod
    def load(cls, path: Path) -> "StepTime":
        content = read_json(path, MAX_BYTES)
        return cls(content.number("memory_sec"), content.number("none_sec"))


def measure(sweep: SweepFolder, arm: str) -> StepTime:
    settings = sweep.settings(arm)
    trainers = [_trainer(sweep, arm, one) for one in (settings, replace(settings, memory=None))]
    seconds: list[list[float]] = [[], []]
    for trainer in trainers:
        _turn(trainer, WARM_UP_STEPS)
    for _ in range(TURNS):
        for trainer, found in zip(trainers, seconds, strict=True):
            found.append(_turn(trainer, STEPS_A_TURN))
    return StepTime(*map(statistics.median, seconds))


def _trainer(sweep: SweepFolder, arm: str, settings: Settings) -> Trainer:
    """One that takes steps and leaves no files."""
    run = sweep.material.run(sweep.rule(arm))
    assert settings.precision
    return Trainer(run, settings.resolve(run.vocab(), settings.precision), sweep.material.tokens)


def _turn(trainer: Trainer, steps: int) -> float:
    """Seconds of a step."""
    clock = time.process_time if trainer.device.type == "cpu" else time.perf_counter
    began = clock()
    for _ in range(steps):
        trainer.train_step()  # gives the loss as a number, for which a GPU has to end its work
    return (clock() - began) / steps


def main() -> None:
    sweep, arm = SweepFolder(Path(sys.argv[1])), sys.argv[2]
    torch.set_num_threads(1)
    found = measure(sweep, arm)
    write_text(sweep.step_time_path, json.dumps({"memory_sec": found.memory_sec, "none_sec": found.none_sec}))


if __name__ == "__main__":
    main()
