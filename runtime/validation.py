"""What a model loses on text it was not trained on: the figure that everything about the memory is judged by."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.config import Precision
from runtime.device import autocast, default_device
from runtime.document_mean import DocumentMean
from runtime.lookup import TokenIds
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun
from runtime.vectors import Vectors
from runtime.windows import Block, Side
from table.store.store import TableStore

VALIDATION_TOKENS = 1 << 16
LEAST_TOKENS = 1 << 11  # of a validation while training: fewer say nothing
TRAINED_PER_VALIDATED = 4


class VectorSource(Protocol):
    """What gives a model its vectors: a Lookup, or something in its place."""

    def vectors(self, token_ids: TokenIds) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class Validation:
    nats_per_token: float
    bits_per_byte: float
    tokens: int  # judged
    documents: int | None  # that they are of; None where the run does not know where its documents end
    standard_error: float | None  # of the nats, by documents; None for one document


def validation_budget(tokens_between: int) -> int:
    """How many tokens to validate on, given how many are trained on from one validation to the next.

    A token takes a third as long to judge as to train on, or less, so a quarter of the tokens is less than a tenth of the time
    whatever the vocabulary; but for trainings of so few tokens that LEAST_TOKENS are more than a quarter.
    """
    return min(VALIDATION_TOKENS, max(LEAST_TOKENS, tokens_between // TRAINED_PER_VALIDATED))


def validate(
    model: LanguageModel,
    tokens: Tokens,
    length: int,
    precision: Precision,
    lookup: VectorSource | None,
    budget_tokens: int = VALIDATION_TOKENS,
) -> Validation:
    """The loss over a fair sample of the validation side, in windows of `length` tokens; with no lookup, the memory is
    suppressed.
    """
    side = Side(tokens, length, budget_tokens)
    found = DocumentMean(side.documents)
    for block in side:
        vectors = lookup.vectors(block.inputs) if lookup else None
        found.add(block.documents, token_losses(model, block, precision, vectors))
    documents = found.documents if tokens.documents else None
    bits = found.mean / math.log(2) * tokens.per_byte("validation")
    return Validation(found.mean, bits, found.tokens, documents, found.standard_error)


@torch.no_grad()
def token_losses(model: LanguageModel, block: Block, precision: Precision, vectors: Vectors | None) -> NDArray[np.float32]:
    """(B, T) The loss of each of a block's targets, in nats."""
    ids, following = (torch.from_numpy(part).to(model.device) for part in (block.inputs, block.targets))
    with autocast(model.device, precision):
        return model.token_losses(ids, following, vectors).cpu().numpy()


def validate_stores(run: Run, stores: list[TableStore], budget_tokens: int = VALIDATION_TOKENS) -> list[Validation]:
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
    lookups = (trained.lookup("mapped", store) for store in stores)
    return [validate(trained.model, tokens, length, precision, lookup, budget_tokens) for lookup in lookups]
