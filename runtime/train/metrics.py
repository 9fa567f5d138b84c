"""Metrics: what a training reports of each step, one line of JSON a step in `train/metrics.jsonl`.

Every line has `step`, `loss_nats`, `tokens_per_sec` and `elapsed_sec`; one of a step with a validation has that too, and what
the model wrote then. Where the `tensorboard` package is installed the same numbers go to `train/tensorboard/`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashing.base.atomic import write_text
from hashing.base.errors import EngramError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SHOWN_IN_TENSORBOARD = ("loss_nats", "tokens_per_sec", "validation_nats", "bits_per_byte", "standard_error_nats")
FLUSHED_AFTER_SEC = 10


@dataclass(frozen=True, slots=True)
class Metrics:
    folder: Path  # the run's `train/`

    @property
    def path(self) -> Path:
        return self.folder / "metrics.jsonl"

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every step's, in order. Raises EngramError for a broken line before the last, which a kill may cut short."""
        content = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        for number, line in enumerate(content, 1):
            try:
                found = json.loads(line)
                yield found if isinstance(found, dict) and isinstance(found["step"], int) else _refuse(self.path, number)
            except (KeyError, json.JSONDecodeError):
                if number < len(content):
                    _refuse(self.path, number)

    def forget_after(self, step: int) -> None:
        """Drops the lines of steps that will be taken again."""
        kept = [line for line in self.lines() if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))


def _refuse(path: Path, number: int) -> dict[str, Any]:
    raise EngramError(f"{path}: line {number} is not what a training writes", hint="remove the line; only curves need it")


class MetricsWriter:
    """Appends the metrics of the steps that follow; a line is with the system before the next step begins."""

    def __init__(self, metrics: Metrics, step: int) -> None:
        self._file = metrics.path.open("a", encoding="utf-8")
        self._board: SummaryWriter | None = None
        if find_spec("tensorboard"):
            from torch.utils import tensorboard

            folder = str(metrics.folder / "tensorboard")
            self._board = tensorboard.SummaryWriter(folder, purge_step=step + 1, flush_secs=FLUSHED_AFTER_SEC)

    def write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board is not None:
            for name in SHOWN_IN_TENSORBOARD:
                if line.get(name) is not None:
                    self._board.add_scalar(name, line[name], line["step"])
            if "sample" in line:
                self._board.add_text("sample", line["sample"], line["step"])

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
