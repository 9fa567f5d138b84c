"""A text as the memory sees it: token by token how far each layer's gate opens, and the loss with the memory and without.

The text is read as `engram eval` reads it, and its losses are the same: it follows an end-of-text token, in windows of the
training's length that overlap by half where it is longer. The gates of a token are those of the window that judges it. Its
first token has a loss there, but one that says what documents begin with and nothing of the text: here it is None.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import UsageError
from runtime.inspect.gates import watching_gates
from runtime.inspect.threads import few_threads
from runtime.lookup import Lookup
from runtime.trained_run import TrainedRun
from runtime.validation import token_losses
from runtime.windows import CONTEXT, Block, Texts

MOST_TOKENS = 1 << 14  # of a text: more is nobody's to look at token by token


@dataclass(frozen=True, slots=True)
class TextView:
    """Of T tokens; losses are in nats, and None for the first token."""

    tokens: tuple[str, ...]  # their texts
    token_ids: tuple[int, ...]
    loss_nats: tuple[float | None, ...]
    suppressed_nats: tuple[float | None, ...]  # the same model's with its memory switched off
    gates: dict[int, tuple[tuple[float, ...], ...]]  # layer → one per stream and token, from 0 to 1
    window_tokens: int  # how many the model sees at once; a longer text is read in overlapping windows

    @property
    def effect_nats(self) -> tuple[float | None, ...]:
        """Suppressed less intact: above 0 where the memory helps."""
        pairs = zip(self.loss_nats, self.suppressed_nats, strict=True)
        return tuple(None if own is None or without is None else without - own for own, without in pairs)

    @property
    def difference_nats(self) -> float:
        """The sum of the effects: what the memory saves on this text."""
        return sum(effect for effect in self.effect_nats if effect is not None)

    def to_json(self) -> dict[str, Any]:
        return {
            "tokens": list(self.tokens),
            "token_ids": list(self.token_ids),
            "loss_nats": list(self.loss_nats),
            "suppressed_nats": list(self.suppressed_nats),
            "difference_nats": self.difference_nats,
            "layers": list(self.gates),
            "gates": {layer: [list(streams) for streams in tokens] for layer, tokens in self.gates.items()},
            "window_tokens": self.window_tokens,
        }


@dataclass(frozen=True, slots=True)
class _Judged:
    """Of the tokens that some windows judge."""

    losses: NDArray[np.float32]  # (tokens,)
    suppressed: NDArray[np.float32]  # (tokens,)
    gates: dict[int, NDArray[np.float32]]  # layer → (tokens, M)


def view_text(trained: TrainedRun, text: str) -> TextView:
    """Raises UsageError for a text without tokens or with more than MOST_TOKENS, and for a run without memory."""
    ids, lookup = trained.tokenizer.encode(text, add_special_tokens=False).ids, trained.lookup("mapped")
    if lookup is None:
        raise UsageError("this run was trained without memory: it has no gates to show", hint="name a run with memory")
    if not ids:
        raise UsageError("the text is empty; it needs at least one token", hint="name a text")
    if len(ids) > MOST_TOKENS:
        hint = "engram eval measures a text of any length"
        raise UsageError(f"the text has {len(ids):,} tokens, more than the {MOST_TOKENS:,} that are shown", hint=hint)
    length = trained.config.recipe.length
    with few_threads(trained.model):
        parts = list(_judged(trained, lookup, Texts([ids], length, trained.vocab.end_of_text_id)))
    return TextView(
        tokens=tuple(trained.vocab.texts[i] for i in ids),
        token_ids=tuple(ids),
        loss_nats=_but_the_first([part.losses for part in parts]),
        suppressed_nats=_but_the_first([part.suppressed for part in parts]),
        gates={
            layer: tuple(map(tuple, np.concatenate([part.gates[layer] for part in parts]).tolist()))
            for layer in trained.config.layers
        },
        window_tokens=length,
    )


def _judged(trained: TrainedRun, lookup: Lookup, windows: Texts) -> Iterator[_Judged]:
    """Of each block of windows what it judges, which is every token once, in the text's order."""
    model, precision = trained.model, trained.config.precision
    for block in windows:
        longer = _to_the_last_target(block)
        judged = block.documents != CONTEXT
        vectors = lookup.vectors(longer.inputs)
        with watching_gates(model) as gates:
            losses = token_losses(model, longer, precision, vectors)
        suppressed = token_losses(model, longer, precision, None)
        yield _Judged(
            losses[:, :-1][judged],
            suppressed[:, :-1][judged],
            {layer: gate.float().cpu().numpy()[:, 1:][judged] for layer, gate in gates.items()},
        )


def _to_the_last_target(block: Block) -> Block:
    """The block with its last target as one more input, whose gates are wanted; what is to follow it does not matter."""
    last = block.targets[:, -1:]
    return replace(block, inputs=np.hstack([block.inputs, last]), targets=np.hstack([block.targets, last]))


def _but_the_first(parts: list[NDArray[np.float32]]) -> tuple[float | None, ...]:
    losses: list[float] = np.concatenate(parts).tolist()
    return (None, *losses[1:])
