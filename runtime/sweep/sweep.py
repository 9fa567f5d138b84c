"""Sweep: trainings of several arms with several seeds, side by side, interrupted and continued at will.

Every training is a process of its own with one thread (`job.py`). All arms with the first seed come first, then all with the
next: a sweep that is interrupted has compared something. What is done is not done again, and what was begun goes on.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus
from runtime.device import default_device, fast_precision
from runtime.replacement import WriterLock
from runtime.settings import Settings
from runtime.sweep.arm import Arm
from runtime.sweep.folder import SweepFolder
from runtime.sweep.material import Material
from runtime.sweep.step_time import StepTime
from runtime.tokens_writer import Progress, quiet

POLLED_SEC = 0.2
PLANTED_SEED = 0  # of the text that is planted, which is the same for all seeds of trainings

JobName = tuple[str, int]
"""Of an arm, and a seed."""


@dataclass(frozen=True, slots=True)
class Sweep:
    name: str
    arms: Sequence[Arm]
    seeds: Sequence[int]
    place: SweepFolder

    @property
    def jobs(self) -> list[JobName]:
        """In the order in which they are begun."""
        return [(arm.name, seed) for seed in self.seeds for arm in self.arms]

    @property
    def left(self) -> list[JobName]:
        return [job for job in self.jobs if self.place.result(*job) is None]

    def prepare(self, corpus: Corpus, other: tuple[Path, ...], keeps_runs: bool, progress: Progress = quiet) -> None:
        """Makes what all trainings need, as far as it is not there; `progress` hears how much of the corpus is encoded.

        Raises EngramError where the folder holds another sweep, and as Corpus does.
        """
        about = {"corpus": [str(path.absolute()) for path in corpus.paths], "other": [str(path.absolute()) for path in other]}
        with WriterLock(self.place.folder):
            self.place.begin(self.name, self.arms, about, keeps_runs)
            Material.make(self.place.folder / "material", corpus, other, PLANTED_SEED, progress)
            self._write_settings()

    def _write_settings(self) -> None:
        """Of every arm once: they hold a precision, and maybe a number of steps, that is measured."""
        first, *others = self.arms
        if not self.place.toml(first.name).exists():
            fastest = first.settings.precision or fast_precision(default_device())
            self.place.write_settings(first.name, replace(first.settings, precision=fastest))
        precision = self.place.settings(first.name).precision
        for arm in others:
            if not self.place.toml(arm.name).exists():
                settings = replace(arm.settings, precision=precision)
                self.place.write_settings(arm.name, self._as_long_as_first(settings) if arm.equal_time else settings)

    def _as_long_as_first(self, settings: Settings) -> Settings:
        """With as many steps, without memory, as fit into the time of the first arm's."""
        if not self.place.step_time_path.exists():
            self._check(
                _process("step_time", self.place.folder, self.arms[0].name, log=self._log("step_time")).wait(), "step_time"
            )
        assert settings.recipe.steps
        steps = round(settings.recipe.steps * StepTime.load(self.place.step_time_path).ratio)
        return replace(settings, recipe=replace(settings.recipe, steps=steps))

    def run(self, workers: int, stop: Callable[[], bool], tell: Callable[[JobName], None] = lambda _: None) -> bool:
        """Does what is left, so many jobs at a time, and `tell`s of each that is done; whether everything is done then.

        When `stop` says so, jobs save what they have, and the next call goes on. Raises EngramError when a job fails; the
        others save then too.
        """
        waiting, running = self.left, dict[JobName, subprocess.Popen[bytes]]()
        with WriterLock(self.place.folder):
            try:
                while not stop() and (waiting or running):
                    while waiting and len(running) < workers:
                        job = waiting.pop(0)
                        running[job] = self._started(job)
                    time.sleep(POLLED_SEC)
                    for job in [job for job, process in running.items() if process.poll() is not None]:
                        self._check(running.pop(job).returncode, job_text(job))
                        tell(job)
            finally:
                for process in running.values():
                    process.send_signal(signal.SIGINT)
                for process in running.values():
                    process.wait()
        return not self.left

    def _started(self, job: JobName) -> "subprocess.Popen[bytes]":
        arm, seed = job
        return _process("job", self.place.folder, arm, str(seed), log=self._log(job_text(job)))

    def _log(self, name: str) -> Path:
        return self.place.folder / "logs" / f"{name}.txt"

    def _check(self, status: int, name: str) -> None:
        """Raises EngramError for a process that failed."""
        if status:
            said = self._log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = said[-1].removeprefix("error: ") if said else f"exit status {status}"
            raise EngramError(f"{name} failed: {reason}", hint=f"{self._log(name)} has all that it said")


def job_text(job: JobName) -> str:
    return f"{job[0]}-seed-{job[1]}"


def _process(module: str, folder: Path, *arguments: str, log: Path) -> "subprocess.Popen[bytes]":
    """A module of this room as a process with one thread, and what it says in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"runtime.sweep.{module}", str(folder), *arguments]
    with log.open("wb") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"})
