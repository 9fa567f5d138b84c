"""Evaluation: what a model loses on a text with its memory, and with something else in the memory's place.

Every variant is judged on the same tokens, so the difference to the intact model has an error of its own, far smaller than
those of the two losses: what makes a document hard makes it hard for both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import UsageError
from runtime.ablation import Ablation, Held, Variant, in_place_of_rows, intact, mean_rows, named_ablation, suppressed
from runtime.config import Precision
from runtime.document_mean import DocumentMean
from runtime.model.language_model import LanguageModel
from runtime.model.points import watching
from runtime.trained_run import TrainedRun
from runtime.validation import VectorSource, token_losses
from runtime.vectors import Vectors
from runtime.windows import CONTEXT, Block, Side, Texts

WITH_MEMORY, SUPPRESSED, MEAN_ROW = "with the memory", "memory suppressed", "mean row in place"
NO_MEMORY, WITHOUT = "without memory", "without "


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one variant of a model."""

    nats_per_token: float
    standard_error: float | None  # by documents; None where there is one
    difference: float  # to the first variant
    difference_error: float | None

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats_per_token)


@dataclass(frozen=True, slots=True)
class Evaluation:
    tokens: int  # judged
    documents: int
    losses: Mapping[str, Loss]  # by the name of the variant, in the order given
    token_nats: Mapping[str, NDArray[np.float32]]  # (tokens,) of each variant whose tokens were asked for, in the text's order


def variants(trained: TrainedRun, without: Sequence[str] = ()) -> dict[str, Ablation]:
    """By name, with the intact model first: the memory suppressed, the mean row in place of each, and what else is left out.

    A model that was trained without memory has only the first, by its own name. Raises UsageError for something to leave out
    that there is not.
    """
    if trained.store is None:
        if without:
            raise UsageError(
                f"this run was trained without memory: there is no {without[0]!r} to leave out", hint="leave --without out"
            )
        return {NO_MEMORY: intact}
    spec = trained.store.spec
    left_out = {f"{WITHOUT}{name}": named_ablation(name, spec) for name in without}
    return {
        WITH_MEMORY: intact,
        SUPPRESSED: suppressed,
        MEAN_ROW: in_place_of_rows(mean_rows(trained.tables, spec)),
        **left_out,
    }


def evaluate(
    model: LanguageModel,
    precision: Precision,
    lookup: VectorSource | None,
    windows: Side | Texts,
    variants: Mapping[str, Variant],
    with_tokens: Sequence[str] = (),
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """The losses of each variant of a model, of which the first is what the others are compared with.

    With no lookup, the model has no memory and variants cannot differ. `with_tokens` names those whose losses are kept token by
    token; `advance` hears of every block.
    """
    means = {name: DocumentMean(windows.documents) for name in variants}
    differences = {name: DocumentMean(windows.documents) for name in variants}
    kept: dict[str, list[NDArray[np.float32]]] = {name: [] for name in with_tokens}
    for block in windows:
        judged = block.documents != CONTEXT
        documents = block.documents[judged]
        found = {name: losses[judged] for name, losses in _losses(model, precision, lookup, block, variants).items()}
        first = next(iter(found.values()))
        for name, losses in found.items():
            means[name].add(documents, losses)
            differences[name].add(documents, losses.astype(np.float64) - first)
        for name, pieces in kept.items():
            pieces.append(found[name])
        advance(1)
    losses = {
        name: Loss(mean.mean, mean.standard_error, differences[name].mean, differences[name].standard_error)
        for name, mean in means.items()
    }
    one = next(iter(means.values()))
    return Evaluation(one.tokens, one.documents, losses, {name: np.concatenate(pieces) for name, pieces in kept.items()})


def _losses(
    model: LanguageModel,
    precision: Precision,
    lookup: VectorSource | None,
    block: Block,
    variants: Mapping[str, Variant],
) -> dict[str, NDArray[np.float32]]:
    """(B, T) each. The rows of a block are asked for once for all variants."""
    vectors = lookup.vectors(block.inputs) if lookup else None
    return {name: _variant_losses(model, precision, vectors, block, variant) for name, variant in variants.items()}


def _variant_losses(
    model: LanguageModel, precision: Precision, vectors: Vectors | None, block: Block, variant: Variant
) -> NDArray[np.float32]:
    if isinstance(variant, Held):
        with watching(model, variant.watch):
            return token_losses(model, block, precision, vectors)
    return token_losses(model, block, precision, variant(vectors) if vectors else None)
