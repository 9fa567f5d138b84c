"""Sweeps at toy size, of two arms."""

import sys
from pathlib import Path

from hashing.text.corpus import Corpus
from runtime.sweep.arms import arms_of
from runtime.sweep.folder import SweepFolder
from runtime.sweep.material import Material
from runtime.sweep.sweep import PLANTED_SEED, Sweep
from runtime.train.choice import chosen_settings

STEPS = 8
SETS = ["recipe.evaluations=4", "recipe.sample_tokens=0", "recipe.batch=2"]


def small_sweep(folder: Path, corpus: Path, seeds: int = 2) -> Sweep:
    """The memory and its control, prepared as far as that has not been done."""
    base = chosen_settings(preset="nano", sets=SETS, options={"recipe.steps": STEPS})
    sweep = Sweep("controls", arms_of("controls", base)[:2], range(seeds), SweepFolder(folder))
    sweep.prepare(Corpus((corpus,)), (corpus,), keeps_runs=True)
    return sweep


def make_material(folder: Path, corpus: Path) -> None:
    """With few questions and little of another domain, which are most of the time that a small sweep takes."""
    Material.make(folder, Corpus((corpus,)), (corpus,), PLANTED_SEED)
    for name, every in (("questions.jsonl", 30), ("other.jsonl", 50)):
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[::every]))


if __name__ == "__main__":
    small_sweep(Path(sys.argv[1]), Path(sys.argv[2]), seeds=1).run(2, lambda: False)
