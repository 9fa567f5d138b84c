"""Named values of a forward pass: `record` reads them by their names, and changes them, within one call.

    record(run, "is not None", ["blocks.1.memory.gate"])                        # {name: tensor}
    record(run, "is not None", ["logits"], {"blocks.1.memory.gate": lambda gate, name: gate.clamp(max=0.5)})

Names, for block n, in the order in which the values arise (B texts, T tokens, D width of a stream, M streams, E width of a
memory's vector, columns rows per token, V tokens of the vocabulary; `points` lists them with their sizes):

    blocks.n.in          (B, T, D)           the residual stream that enters the block
    blocks.n.memory.rows (B, T, columns)     row numbers in the layer's table, int64: replaced, other rows are gathered
    blocks.n.memory.e    (B, T, E)           the rows' vectors, side by side
    blocks.n.memory.key  (B, T, M, D)        projected, before its norm
    blocks.n.memory.value (B, T, 1, D)       shared by the streams
    blocks.n.memory.score (B, T, M, 1)       how well stream and key fit
    blocks.n.memory.gate (B, T, M, 1)        from 0 to 1
    blocks.n.memory.conv (B, T, M, D)        what the convolution adds
    blocks.n.memory.out  (B, T, M, D)        what the memory adds to the streams
    blocks.n.attention   (B, T, D)           what attention adds
    blocks.n.ffn         (B, T, D)           what the feed-forward network adds
    blocks.n.out         (B, T, D)           the residual stream that leaves the block
    logits               (B, T, V)           after each token

Rows follow from the tokens alone and are all known before the model begins; a replacement of them is asked for then. A
function gets the value as it is, and gives its replacement or None to leave it. A replacement has the value's shape and is
brought to its type and device. A value that is both named and replaced is recorded as it was put in.

A text is a sequence of its own, with nothing before it. `inspect text` reads a text after an end-of-text token: begin the text
with that token to see the same. Everything is computed in float32 and without gradients; reading changes no number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashing.base.errors import UsageError
from runtime.device import default_device
from runtime.inspect.threads import few_threads
from runtime.model.points import watching
from runtime.run import Run
from runtime.trained_run import TrainedRun
from runtime.vectors import LayerRows, Vectors

LOGITS = "logits"
Change = Tensor | Callable[[Tensor, str], Tensor | None]
"""What takes a value's place: a tensor, or `fn(tensor, name)`, which gives one or None."""

Shape = tuple[int | str, ...]
Texts = list[str] | tuple[str, ...]


@overload
def record(
    run: Run | TrainedRun, text: str, names: Sequence[str], replace: Mapping[str, Change] = ...
) -> dict[str, Tensor]: ...
@overload
def record(
    run: Run | TrainedRun, text: Texts, names: Sequence[str], replace: Mapping[str, Change] = ...
) -> list[dict[str, Tensor]]: ...
def record(
    run: Run | TrainedRun, text: str | Texts, names: Sequence[str], replace: Mapping[str, Change] | None = None
) -> dict[str, Tensor] | list[dict[str, Tensor]]:
    """The values of those names as a text is read, on the CPU, or a list of such for a list of texts, which are read apart.

    Raises UsageError for a name that there is not, a text without tokens, or a replacement that is no tensor or has numbers of
    another kind, EngramError for one of another shape; each names the point. Nothing stays hooked.
    """
    trained = run if isinstance(run, TrainedRun) else TrainedRun.load(run, default_device())
    changes = replace or {}
    _check_names(trained, [*names, *changes])
    one = partial(_record, trained, names=names, changes=changes)
    return one(text) if isinstance(text, str) else [one(each) for each in text]


def points(trained: TrainedRun) -> dict[str, Shape]:
    """The name of every value with its shape, in the order in which they arise: "B" texts, "T" tokens, and numbers."""
    shapes: dict[str, Shape] = {}
    _forward(trained, np.zeros((1, 2), np.int64), lambda name, value: shapes.update({name: ("B", "T", *value.shape[2:])}))
    return {name: shapes[name] for name in _in_order(shapes)}


def _in_order(names: Sequence[str] | Mapping[str, Shape]) -> list[str]:
    """With the rows of a layer, which are known before the model begins, right before what is gathered from them."""
    rows = {name for name in names if name.endswith(".rows")}
    ordered = []
    for name in names:
        if name not in rows:
            if name.endswith(".memory.e"):
                ordered.append(f"{name.removesuffix('.e')}.rows")
            ordered.append(name)
    return ordered


def _check_names(trained: TrainedRun, names: Sequence[str]) -> None:
    """Raises UsageError for a name that is no point, suggesting the nearest."""
    there = points(trained)
    for name in names:
        if name not in there:
            nearest = get_close_matches(name, there, n=1, cutoff=0)
            raise UsageError(
                f"there is no point {name!r}; the nearest is {nearest[0]!r}",
                hint="runtime.inspect.record.points(run) lists all",
            )


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Called at every point; keeps the values that are wanted."""

    names: frozenset[str]
    changes: Mapping[str, Change]
    values: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, name: str, value: Tensor) -> Tensor | None:
        replacement = self._replacement(name, value) if name in self.changes else None
        if name in self.names:
            self.values[name] = (value if replacement is None else replacement).detach().cpu()
        return replacement

    def _replacement(self, name: str, value: Tensor) -> Tensor | None:
        change = self.changes[name]
        given = change if isinstance(change, Tensor) else change(value, name)
        if given is None:
            return None
        if not isinstance(given, Tensor):
            raise UsageError(f"the replacement of {name} is a {type(given).__name__}, expected a tensor or None")
        if given.is_floating_point() != value.is_floating_point():
            raise UsageError(f"the replacement of {name} is {given.dtype}, expected {value.dtype}")
        if given.shape != value.shape:
            raise UsageError(f"the replacement of {name} has shape {tuple(given.shape)}, expected {tuple(value.shape)}")
        return given.to(value)


def _record(trained: TrainedRun, text: str, names: Sequence[str], changes: Mapping[str, Change]) -> dict[str, Tensor]:
    ids = trained.tokenizer.encode(text, add_special_tokens=False).ids
    if not ids:
        raise UsageError("the text is empty; it needs at least one token", hint="name a text")
    recorder = _Recorder(frozenset(names), changes)
    _forward(trained, np.array([ids], np.int64), recorder)
    return {name: recorder.values[name] for name in names}


@torch.no_grad()
def _forward(trained: TrainedRun, token_ids: NDArray[np.int64], watch: Callable[[str, Tensor], Tensor | None]) -> None:
    """Reads token ids (B, T), with `watch` called at every point."""
    model, vectors = trained.model, _vectors(trained, token_ids, watch)
    with few_threads(model), watching(model, watch):
        hidden = model(torch.from_numpy(token_ids).to(model.device), vectors)
        watch(LOGITS, model.head(hidden))


def _vectors(
    trained: TrainedRun, token_ids: NDArray[np.int64], watch: Callable[[str, Tensor], Tensor | None]
) -> Vectors | None:
    """Asks for the rows of token ids (B, T), or for what takes their place; None for a run without memory."""
    if (lookup := trained.lookup("mapped")) is None:
        return None
    found = lookup.addressing.addresses(token_ids).rows
    return lookup.placement.fetch({layer: _watched_rows(trained, layer, found, watch) for layer in found})


def _watched_rows(
    trained: TrainedRun, layer: int, found: LayerRows, watch: Callable[[str, Tensor], Tensor | None]
) -> NDArray[np.signedinteger]:
    name, count = f"blocks.{layer}.memory.rows", trained.tables[layer].rows
    replacement = watch(name, torch.from_numpy(found[layer]))
    if replacement is None:
        return found[layer]
    rows: NDArray[np.int64] = replacement.numpy()
    if outside := [row for row in rows.ravel().tolist() if not 0 <= row < count]:
        raise UsageError(f"the replacement of {name} has row {outside[0]:,}, expected 0 to {count - 1:,}")
    return rows
