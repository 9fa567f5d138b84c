"""Checkpoints: which ones a training has left, and how good each was; `train/checkpoint.py` says what is in them."""

from dataclasses import dataclass
from pathlib import Path

from hashing.base.errors import EngramError
from hashing.base.json_object import read_json

MAX_BYTES = 1 << 16  # of progress.json, which holds two numbers


@dataclass(frozen=True, slots=True)
class Progress:
    """What the model does not say of its step."""

    elapsed_sec: float
    validation_nats: float | None  # None where the step had no validation


@dataclass(frozen=True, slots=True)
class Checkpoint:
    folder: Path

    @property
    def step(self) -> int:
        return int(self.folder.name.removeprefix("step-"))

    def vocab(self) -> str | None:
        """The fingerprint of the vocabulary that the model reads; None where version 0.1 wrote it, which did not say."""
        from runtime.tensor_file import read_metadata  # here, because it loads torch, which whoever lists checkpoints need not

        return read_metadata(self.folder / "model.safetensors").get("vocab")

    def progress(self) -> Progress:
        path = self.folder / "progress.json"
        if not path.exists():  # as version 0.1 left it
            return Progress(0.0, None)
        content = read_json(path, MAX_BYTES)
        return Progress(
            content.number("elapsed_sec"), None if content.is_null("validation_nats") else content.number("validation_nats")
        )

    @property
    def validation_nats(self) -> float:
        """Infinite where the step had no validation."""
        found = self.progress().validation_nats
        return float("inf") if found is None else found


def checkpoints(train_folder: Path) -> list[Checkpoint]:
    """Those that are whole, in order of their steps."""
    found = [Checkpoint(path) for path in train_folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def best_of(found: list[Checkpoint]) -> Checkpoint:
    """The one with the lowest validation; of equals, and where none was validated, the newest."""
    return min(reversed(found), key=lambda checkpoint: checkpoint.validation_nats)


def best_checkpoint(train_folder: Path) -> Checkpoint:
    """Raises EngramError where the training has left none."""
    if not (found := checkpoints(train_folder)):
        raise EngramError(f"{train_folder} has no checkpoint", hint="train first, with engram train")
    return best_of(found)
