"""`engram train`, killed at random moments and resumed each time, is the training that nobody disturbed: to the bit."""

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.run import Run
from runtime.train.disk_rows import DiskRows
from runtime.train.trainer import Trainer
from tests.commands import engram_process

STEPS, KILLS = 60, 2
LATEST_SEC = 0.1  # after a step is known to be done: a few steps, with a checkpoint
CLOCK = {"tokens_per_sec", "elapsed_sec"}
FORMS = {
    "dense": [],
    "experts": ["model.blocks=3", "model.experts=4", "model.expert_ffn=32", "recipe.accumulate=2"],
    "streams": ["model.streams=3", "recipe.decay_share=0.3"],
    "on disk": ["recipe.row_place=disk", "recipe.row_rule=adam"],
}


@dataclass(frozen=True, slots=True)
class Training:
    """One that validates twice and saves at every third step; with few of its rows changed in between."""

    run: Run
    corpus_path: Path
    form: str
    steps: int

    @property
    def arguments(self) -> list[str]:
        where = ["--run", str(self.run.folder)]
        if Run(self.run.folder).config_path.exists():
            return ["train", "--resume", *where]
        sets = [*FORMS[self.form], "precision=float32", "recipe.evaluations=2", "recipe.checkpoint_steps=3", "recipe.kept=2"]
        sets += ["recipe.sample_tokens=0", "recipe.batch=2", "recipe.length=16", "memory.rows_per_head=20_000"]
        options = [word for pair in sets for word in ("--set", pair)]
        return ["train", "--preset", "nano", "--steps", str(self.steps), *options, "--corpus", str(self.corpus_path), *where]

    def finish(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """Trains to the end, in a process with as many threads as the others; gives every step's losses and the state."""
        with engram_process(*self.arguments, stdout=subprocess.DEVNULL) as process:
            assert process.wait(timeout=300) == 0
        state = Trainer.resume(self.run).state
        tensors = dict(state.model.state_dict())
        if isinstance(state.rows, DiskRows):
            files = state.rows.files.items()
            tensors |= {f"records of {layer}": torch.from_numpy(file.read(np.arange(file.rows))) for layer, file in files}
        for layer, table in state.tables.items():
            tensors |= {f"rows of {layer}: {name}": array for name, array in table.state().items()}
        for name, parameter in state.model.named_parameters():
            tensors |= {f"{name}: {key}": value for key, value in state.optimizer.state[parameter].items()}
        return [{k: v for k, v in line.items() if k not in CLOCK} for line in self.lines()], tensors

    def lines(self) -> list[dict[str, Any]]:
        path = self.run.train_folder / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def kill(self, chance: random.Random, steps: int) -> str:
        """Lets it take at most so many steps more, and kills it at some moment after the last of them; says where it was."""
        last = len(self.lines()) + chance.randrange(1, steps)
        with engram_process(*self.arguments, stdout=subprocess.DEVNULL) as process:
            self._wait(process, last)
            time.sleep(chance.random() * LATEST_SEC)
            assert process.poll() in (None, 0), "it ended by itself"
            process.kill()
        partial = [path.name for path in self.run.folder.rglob("*.partial")]
        return f"step {len(self.lines())}, with {', '.join(partial) or 'nothing'} half-written"

    def _wait(self, process: "subprocess.Popen[str]", step: int) -> None:
        deadline = time.monotonic() + 120
        while process.poll() is None and not (self.run.config_path.exists() and len(self.lines()) >= step):
            assert time.monotonic() < deadline
            time.sleep(0.001)


def killed_and_undisturbed(folder: Path, vocab_run: Run, corpus_path: Path, form: str, steps: int, kills: int) -> Iterator[str]:
    """Trains once undisturbed and once killed so many times; says of each kill where it came, and at last compares."""
    undisturbed, killed = (
        Training(Run(shutil.copytree(vocab_run.folder, folder / name)), corpus_path, form, steps)
        for name in ("whole", "killed")
    )
    losses, state = undisturbed.finish()
    assert [line["step"] for line in losses] == list(range(1, steps + 1))
    chance = random.Random(form)
    for _ in range(kills):
        yield killed.kill(chance, max(2, steps // kills))
    found_losses, found = killed.finish()
    assert not [path for path in killed.run.train_folder.iterdir() if path.suffix in {".partial", ".removed"}]
    assert found_losses == losses
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "on disk"])
def test_a_killed_training_is_the_undisturbed_one(tmp_path: Path, vocab_run: Run, corpus_path: Path, form: str) -> None:
    assert len(list(killed_and_undisturbed(tmp_path, vocab_run, corpus_path, form, STEPS, KILLS))) == KILLS
