"""Whatever file operation a kill or a Ctrl-C comes before, the run is the old one whole or the new one whole."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from engram_cli.main import run as command
from hashing.text.corpus import Corpus
from runtime.checkpoints import checkpoints
from runtime.run import Run
from runtime.train.presets import preset
from runtime.train.trainer import Trainer
from runtime.trained_run import TrainedRun
from tests.interruptions import Kind, interrupted, operations
from tests.runs import content

TRIED = 20  # operations of each job, at even distances
Job = Callable[[Run], object]


def train_again(corpus_path: Path) -> Job:
    return lambda run: Trainer.start(run, preset("nano", run.vocab(), "float32", 30, seed=9), Corpus((corpus_path,))).close()


def build_again(corpus_path: Path) -> Job:
    arguments = ["build-vocab", "--corpus", str(corpus_path), "--size", "400", "--force", "--discard-training", "--run"]
    return lambda run: command([*arguments, str(run.folder)])


def save_again(_: Path) -> Job:
    def job(run: Run) -> None:
        trainer = Trainer.resume(run)
        trainer.state.step += 1
        trainer._save(1.0)

    return job


def visible(run: Run) -> dict[str, str]:
    """What commands other than `train` read."""
    return {name: digest for name, digest in content(run).items() if not name.startswith("train/")}


@pytest.mark.parametrize("kind", ["SIGKILL", "Ctrl-C"])
@pytest.mark.parametrize("make", [train_again, build_again])
def test_the_old_run_is_whole_or_the_new_one_is(
    tmp_path: Path, trained_run: Run, corpus_path: Path, make: Callable[[Path], Job], kind: Kind
) -> None:
    job, old = make(corpus_path), content(trained_run)
    fresh = Run(shutil.copytree(trained_run.folder, tmp_path / "fresh"))
    count = operations(lambda: job(fresh), fresh.folder)
    new = content(Run(fresh.folder))
    assert count > TRIED
    assert new != old
    found = set()
    for number in range(TRIED):
        folder = shutil.copytree(trained_run.folder, tmp_path / str(number))
        interrupted(partial(job, Run(folder)), folder, 1 + number * count // TRIED, kind)
        left = content(Run(folder))
        assert left in (old, new), f"operation {1 + number * count // TRIED} of {count}"
        found.add(left == new)
        shutil.rmtree(folder)
    assert False in found


@pytest.mark.parametrize("kind", ["SIGKILL", "Ctrl-C"])
def test_readers_find_one_checkpoint_or_the_next(tmp_path: Path, trained_run: Run, corpus_path: Path, kind: Kind) -> None:
    job = save_again(corpus_path)
    fresh = Run(shutil.copytree(trained_run.folder, tmp_path / "fresh"))
    count = operations(lambda: job(fresh), fresh.folder)
    new, old = visible(Run(fresh.folder)), visible(trained_run)
    for number in range(TRIED):
        folder = shutil.copytree(trained_run.folder, tmp_path / str(number))
        interrupted(partial(job, Run(folder)), folder, 1 + number * count // TRIED, kind)
        assert visible(Run(folder)) in (old, new), f"operation {1 + number * count // TRIED} of {count}"
        TrainedRun.load(Run(folder), torch.device("cpu"))
        assert checkpoints(folder / "train")
        shutil.rmtree(folder)


def keep_fewer(run: Run) -> None:
    Trainer.resume(run, kept=1).close()


def test_a_checkpoint_that_is_half_removed_is_none(tmp_path: Path, trained_run: Run) -> None:
    """Also where those after it are not whole, so that its tables would be looked for."""
    many = Run(shutil.copytree(trained_run.folder, tmp_path / "many"))
    trainer = Trainer.resume(many, steps=90, kept=3)
    for _ in range(3):
        trainer.state.step += 1
        trainer._save(None, whole=False)
    trainer.close()
    assert [checkpoint.step for checkpoint in checkpoints(many.train_folder)] == [30, 31, 32, 33]
    fresh = shutil.copytree(many.folder, tmp_path / "fresh")
    count = operations(lambda: keep_fewer(Run(fresh)), fresh)
    assert count > 2 * TRIED
    for number in range(2 * TRIED):
        folder = shutil.copytree(many.folder, tmp_path / str(number))
        interrupted(partial(keep_fewer, Run(folder)), folder, 1 + number * count // (2 * TRIED), "SIGKILL")
        assert TrainedRun.load(Run(folder), torch.device("cpu")).store is not None
        again = Trainer.resume(Run(folder), kept=1)
        assert again.state.step == 33
        again.close()
        assert [path.name for path in sorted((folder / "train").glob("step-*"))] == ["step-0000030", "step-0000033"]
        shutil.rmtree(folder)
