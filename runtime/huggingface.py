"""Models of others: the library's own model, with its n-gram table left where it is.

    model = load("Qwen3.8-Flash-Next", rows="disk")
    model.generate(**tokenizer("…", return_tensors="pt"))

Everything is `transformers`' own, attention, experts, caches and generation, but for the embedding of n-grams, by far the
largest part. That is never loaded: while the model is made the class has no such parameter, and the rows that it is asked for
come from a placement, which is told of them before the first block begins.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from hashing.base.errors import EngramError
from hashing.base.json_object import read_json
from hashing.hasher import Hasher
from hashing.spec import HashSpec
from runtime.ablation import Ablation, Held, Variant
from runtime.model.points import Watch
from runtime.placement.disk import CACHE_BYTES
from runtime.placement.placement import Placement, PlacementName, check_placement, place
from runtime.vectors import LayerRows, Vectors
from table.checkpoints.family import read_checkpoint
from table.checkpoints.published import Checkpoint
from table.store.parted_table import LaidOutTable, PartedTable
from table.store.store import TableStore

FAMILY = "qwen4_exp"
MAX_CONFIG_BYTES = 1 << 24
MODELING = "transformers.models.qwen4_exp.modeling_qwen4_exp"
EMBEDDING = "Qwen4ExpTextNGramEmbedding"  # keeps the last ids, hashes, and asks `ngram_embedding` for rows
TEXT_MODEL = "Qwen4ExpTextModel"
MEMORY = "Qwen4ExpTextPLELayer"  # projects the rows to a value and to a key for each stream, gates and convolves
LEAST_SCORE = 1e-6  # in absolute value, below which its signed root takes it for
OPEN = 100.0  # a signed root of a score at which a gate is 1, and at its negative 0, in any precision
SMALLEST = 1e-30  # of a key's squared length: a key of zeros has a value of zeros, which any gate leaves
TABLE_KEYS = r"ngram_embedding\."
IDS_STATE = 2  # of a layer's states in the library's cache: the last token ids


class Rows(nn.Module):
    """Stands in for the embedding of a layer: row numbers (B, T, columns) in, vectors (B, T, columns, head_dim) out."""

    def __init__(self, layer: int, spec: HashSpec, table: LaidOutTable, placement: Placement, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer, self.spec, self.table, self.placement, self.dtype = layer, spec, table, placement, dtype
        self.ablation: Ablation | None = None
        self.last: tuple[LayerRows, Vectors] | None = None  # what the last step read
        self.weight = SimpleNamespace(device=torch.device("cpu"))  # where the library is to bring row numbers
        self._asked: tuple[np.ndarray, Vectors] | None = None

    def ask(self, rows: np.ndarray) -> None:
        """Begins to read rows (B, T, columns)."""
        self._asked = rows, self.placement.fetch({self.layer: rows})

    def forward(self, rows: Tensor) -> Tensor:
        numbers = rows.numpy()
        if self._asked is None or not np.array_equal(self._asked[0], numbers):
            self.ask(numbers)
        assert self._asked is not None
        vectors = self._asked[1](self.layer)
        assert vectors is not None
        self.last, self._asked = ({self.layer: numbers}, lambda _: vectors), None
        if self.ablation:
            changed = self.ablation(lambda _: vectors)
            other = None if changed is None else changed(self.layer)
            vectors = torch.zeros_like(vectors) if other is None else other
        return vectors.view(*rows.shape, -1).to(self.dtype)


def load(
    folder: Path | str,
    rows: PlacementName = "disk",
    store: Path | str | None = None,
    cache_bytes: int = CACHE_BYTES,
    **options: Any,
) -> Any:
    """The `transformers` model of a checkpoint folder, in evaluation mode.

    Rows come from a store that was imported from the checkpoint, with none from the checkpoint's own files; `rows` says where
    they are kept meanwhile, on disk with `cache_bytes` of them in memory. `options` are those of the library's
    `from_pretrained`.

    Raises EngramError where `transformers` is missing or too old, for a folder that is no such checkpoint, for an architecture
    without a table, and for a store of another checkpoint.
    """
    check_placement(rows)
    folder = Path(folder)
    _check_family(folder)
    modeling, auto = _library(), import_module("transformers")
    checkpoint = read_checkpoint(folder).check()
    tables = _tables(checkpoint, store)
    placement = place(tables, rows, torch.device("cpu"), cache_bytes)
    with _without_table(modeling):
        model = auto.AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    for module in model.modules():
        if type(module).__name__ == EMBEDDING:
            layer = module.layer_idx
            module.ngram_embedding = Rows(layer, checkpoint.spec, tables[layer], placement, model.dtype)
        if type(module).__name__ == TEXT_MODEL:
            module.layers[0].register_forward_pre_hook(ReadAhead(module, Hasher(checkpoint.spec)), with_kwargs=True)
    return model


def tokenizer_of(folder: Path) -> Tokenizer:
    """Raises EngramError for a checkpoint's folder that has none; what is no folder is told by whoever reads it."""
    path = folder / "tokenizer.json"
    if folder.is_dir() and not path.is_file():
        raise EngramError(f"{folder} has no tokenizer.json", hint="copy it from where the checkpoint was published")
    return Tokenizer.from_file(str(path))


def ends_of(model: Any) -> list[int]:
    """The tokens that end a text, the first of which one begins after; 0 where the model names none."""
    ends = model.generation_config.eos_token_id
    return ends if isinstance(ends, list) else [ends or 0]


def rows_of(model: Any) -> list[Rows]:
    """What stands in for the embeddings of a model that `load` gave, layer by layer."""
    return [module for module in model.modules() if isinstance(module, Rows)]


@contextmanager
def watching(model: Any, watch: Watch) -> Iterator[None]:
    """Within the block `watch` is called at points of every memory, and may replace what is there (`runtime/model/points.py`).

    They are `blocks.N.memory.gate` (B, T, M, 1), from 0 to 1, by the rule of the library's `MEMORY.forward`, and
    `blocks.N.memory.conv` (B, T, M, D), what the convolution adds.
    """
    hooks = [hook for memory in _memories(model) for hook in _watched_gate(memory, watch)]
    for memory in _memories(model):
        memory._short_conv = _watched_convolution(memory, watch)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for memory in _memories(model):
            del memory._short_conv


def _watched_gate(memory: Any, watch: Watch) -> list[Any]:
    """The library has no module that gives a gate, but its score is the product of what two norms give, the key's first."""
    keys: list[Tensor] = []

    def see_key(_: nn.Module, __: Any, normalised: Tensor) -> None:
        keys[:] = [_by_stream(memory, normalised)]

    def see_query(_: nn.Module, __: Any, normalised: Tensor) -> Tensor | None:
        key, root = keys[0], memory.hidden_size**0.5
        score = (key * _by_stream(memory, normalised)).sum(-1, keepdim=True) / root
        gate = (score.abs().clamp_min(LEAST_SCORE).sqrt() * score.sign()).sigmoid()
        held = watch(f"blocks.{memory.layer_idx}.memory.gate", gate)
        if held is None:
            return None
        opened = held.float().logit().clamp(-OPEN, OPEN)
        wanted: Tensor = opened * opened.abs() * root / key.float().square().sum(-1, keepdim=True).clamp_min(SMALLEST)
        return (key * wanted).flatten(-2).to(normalised.dtype)

    return [memory.norm_key.register_forward_hook(see_key), memory.norm_query.register_forward_hook(see_query)]


def _watched_convolution(memory: Any, watch: Watch) -> Callable[..., Tensor]:
    original = memory._short_conv

    def watched(*arguments: Any, **named: Any) -> Tensor:
        found: Tensor = original(*arguments, **named)
        held = watch(f"blocks.{memory.layer_idx}.memory.conv", _by_stream(memory, found))
        return found if held is None else held.flatten(-2)

    return watched


def _by_stream(memory: Any, x: Tensor) -> Tensor:
    """(B, T, M, D) Of x (B, T, M·D)."""
    return x.unflatten(-1, (memory.hc_count, memory.hidden_size))  # type: ignore[no-any-return, no-untyped-call]


@contextmanager
def varied(model: Any, variant: Variant) -> Iterator[None]:
    """Within the block the model is a variant of itself. The memory has no biases, so vectors of zeros suppress it."""
    if isinstance(variant, Held):
        with watching(model, variant.watch):
            yield
        return
    for rows in rows_of(model):
        rows.ablation = variant
    try:
        yield
    finally:
        for rows in rows_of(model):
            rows.ablation = None


def _memories(model: Any) -> list[Any]:
    return [module for module in model.modules() if type(module).__name__ == MEMORY]


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """Asks for the rows of a step before the first block, which has the token ids as the memory will read them."""

    model: nn.Module
    hasher: Hasher

    def __call__(self, _: nn.Module, __: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        ids, cache = named["ple_input_ids"].cpu().numpy(), named.get("cache", named.get("past_key_values"))
        for rows in rows_of(self.model):
            state = cache.get_conv_state(rows.layer, state_idx=IDS_STATE) if cache is not None else None
            history = None if state is None else state.cpu().numpy().astype(np.int64)
            rows.ask(self.hasher.rows(rows.layer, ids, history))


def _check_family(folder: Path) -> None:
    """Raises EngramError for a model of another family; what is no such folder at all is told by whoever reads it."""
    if (path := folder / "config.json").is_file():
        kind = str(read_json(path, MAX_CONFIG_BYTES).members.get("model_type"))
        if not kind.startswith(FAMILY):
            hint = "that is the family whose n-gram table transformers knows"
            raise EngramError(f"{folder} is of the model type {kind}, expected {FAMILY}", hint=hint)


def _library() -> Any:
    try:
        return import_module(MODELING)
    except ImportError as e:
        raise EngramError(
            "models of others need transformers 5.23 or newer", hint="pip install 'engram-tables[huggingface]'"
        ) from e


def _tables(checkpoint: Checkpoint, store: Path | str | None) -> dict[int, LaidOutTable]:
    if store is None:
        return {layer: _in_place(checkpoint, layer) for layer in checkpoint.spec.layers}
    opened = TableStore.open(Path(store))
    if opened.spec.fingerprint != checkpoint.spec.fingerprint:
        raise EngramError(
            f"{store} is of spec {opened.spec.fingerprint}, expected {checkpoint.spec.fingerprint} of {checkpoint.path}",
            hint=f"engram table import {checkpoint.path} makes its store",
        )
    return {layer: opened.table(layer) for layer in opened.spec.layers}


def _in_place(checkpoint: Checkpoint, layer: int) -> PartedTable:
    (parts,) = checkpoint.layers[layer].planes
    return PartedTable.mapped(parts, checkpoint.encoding, checkpoint.head_dim, checkpoint.layers[layer].scale)  # type: ignore[arg-type]


@contextmanager
def _without_table(modeling: Any) -> Iterator[None]:
    """Within the block the library makes models whose embeddings of n-grams have no parameter, and passes their keys over."""
    original = getattr(modeling, EMBEDDING)
    base = modeling.Qwen4ExpPreTrainedModel
    ignored = base._keys_to_ignore_on_load_unexpected

    def made(self: nn.Module, *arguments: Any, **named: Any) -> None:
        with torch.device("meta"):
            original.__init__(self, *arguments, **named)
        self.ngram_embedding = nn.Identity()

    setattr(modeling, EMBEDDING, type(EMBEDDING, (original,), {"__init__": made}))
    base._keys_to_ignore_on_load_unexpected = [*(ignored or []), TABLE_KEYS]
    try:
        yield
    finally:
        setattr(modeling, EMBEDDING, original)
        base._keys_to_ignore_on_load_unexpected = ignored
