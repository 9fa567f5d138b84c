"""Checkpoints: which ones a training has left, and how good each was; `train/checkpoint.py` says what is in them."""

from dataclasses import dataclass
from pathlib import Path

from hashing.base.errors import EngramError
from hashing.base.json_object import read_json

MAX_BYTES = 1 << 16  # of progress.json, which holds two numbers
# Names of what a checkpoint keeps of rows.
TABLES, BASE, MOMENTS, MOMENTS_OF_RANGES, CHANGES, OPTIMIZER = (
    "tables.zarr",
    "base.zarr",
    "moments.safetensors",
    "moments",
    "changes",
    "optimizer.safetensors",
)
ROWS = "rows"


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

    def metadata(self) -> dict[str, str]:
        """The `step`, the `spec` and the `vocab` of the model, by their fingerprints; version 0.1 did not say the last."""
        from runtime.tensor_file import read_metadata  # here, because it loads torch, which whoever lists checkpoints need not

        return read_metadata(self.folder / "model.safetensors")

    @property
    def is_whole(self) -> bool:
        """Whether its tables are there as they were at its step; otherwise they are those of an earlier one, with changes."""
        return (self.folder / TABLES).exists() or not ((self.folder / BASE).exists() or self.rows_folder.exists())

    @property
    def rows_folder(self) -> Path:
        """Where the rows of a training are that has them on disk, as they are now and not as they were at its step."""
        return self.folder / ROWS

    @property
    def store_path(self) -> Path:
        """The tables of its step, or those that changes are of. There are none in a run without memory."""
        return self.folder / (TABLES if self.is_whole else BASE)

    def changes_path(self, layer: int, number: int) -> Path:
        """Where rows of a layer are that have changed since the checkpoint before."""
        return self.folder / CHANGES / f"{self.step}-{layer}-{number}.safetensors"

    def changes(self) -> list[Path]:
        """The changes that it keeps, in the order in which they were made."""
        return sorted((self.folder / CHANGES).glob("*.safetensors"), key=_numbers)

    def moments_path(self, layer: int, number: int) -> Path:
        """Where one process keeps moments of a layer's rows, of several processes that train."""
        return self.folder / MOMENTS_OF_RANGES / f"{layer}-{number}.safetensors"

    def moments(self) -> list[Path]:
        return sorted((self.folder / MOMENTS_OF_RANGES).glob("*.safetensors"), key=_numbers)

    def row_files(self) -> list[Path]:
        """All files that may hold what belongs to rows, each to be laid over those before.

        An earlier version kept moments in the optimiser's.
        """
        whole = [path for name in (OPTIMIZER, MOMENTS) if (path := self.folder / name).exists()]
        return [*whole, *self.moments(), *self.changes()]

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


def changes_step(path: Path) -> int:
    """The step at which a row file's rows were as it has them; 0 for one with all rows."""
    return _numbers(path)[0] if path.parent.name == CHANGES else 0


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in path.stem.split("-")]


def checkpoints(train_folder: Path) -> list[Checkpoint]:
    """Those that are whole, in order of their steps."""
    found = [Checkpoint(path) for path in train_folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def best_of(found: list[Checkpoint]) -> Checkpoint:
    """The one with the lowest validation; of equals, and where none was validated, the newest."""
    return min(reversed(found), key=lambda checkpoint: checkpoint.validation_nats)


def best_checkpoint(train_folder: Path) -> Checkpoint:
    """The best that is whole. Raises EngramError where the training has left none."""
    if not (found := [checkpoint for checkpoint in checkpoints(train_folder) if checkpoint.is_whole]):
        raise EngramError(f"{train_folder} has no checkpoint", hint="train first, with engram train")
    return best_of(found)
