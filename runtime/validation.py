"""What a model loses on text it was not trained on: the figure that everything about the memory is judged by."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.config import Precision
from runtime.device import autocast, default_device
from runtime.lookup import Lookup
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun
from table.store.store import TableStore

EVALUATED_AT_ONCE = 16  # sequences


@dataclass(frozen=True, slots=True)
class Validation:
    nats_per_token: float
    bits_per_byte: float


@torch.no_grad()
def validate(model: LanguageModel, tokens: Tokens, length: int, precision: Precision, lookup: Lookup | None) -> Validation:
    """The loss over the validation side in windows of `length` tokens; with no lookup, the memory is suppressed."""
    total, count = 0.0, 0
    for block in _blocks(tokens.ids("validation"), length):
        inputs, targets = block[:, :-1], block[:, 1:]
        ids, following = (torch.from_numpy(np.ascontiguousarray(part)).to(model.device) for part in (inputs, targets))
        with autocast(model.device, precision):
            loss = model.loss(ids, following, lookup.vectors(inputs) if lookup else None)
        total += loss.item() * targets.size
        count += targets.size
    nats = total / count
    return Validation(nats, nats / math.log(2) * tokens.counts["validation"] / tokens.text_bytes["validation"])


def _blocks(ids: NDArray[np.integer], length: int) -> Iterator[NDArray[np.int64]]:
    """(up to EVALUATED_AT_ONCE, length + 1) Neighbouring windows, which share a token."""
    windows = max(1, (len(ids) - 1) // length)
    for first in range(0, windows, EVALUATED_AT_ONCE):
        starts = range(first * length, min(first + EVALUATED_AT_ONCE, windows) * length, length)
        yield np.stack([ids[s : s + length + 1] for s in starts]).astype(np.int64)


def validate_stores(run: Run, stores: list[TableStore]) -> list[Validation]:
    """The run's model with the tables of other stores in place of its own.

    Empty where the run has no model, no text to validate it on, or the stores are not of its training.
    """
    if not (run.model_path.exists() and (run.train_folder / "tokens").exists()):
        return []
    trained, tokens = TrainedRun.load(run, default_device()), Tokens.open(run.train_folder / "tokens")
    own = trained.store
    if own is None or any((store.spec.fingerprint, store.step) != (own.spec.fingerprint, own.step) for store in stores):
        return []
    length, precision = trained.config.recipe.length, trained.config.precision
    return [validate(trained.model, tokens, length, precision, trained.lookup("disk", store)) for store in stores]
