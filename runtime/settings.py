"""Settings: a run's configuration as a person writes it, before a vocabulary is known.

Every field of a RunConfig follows from them and a vocabulary; `Settings.resolve` leads there and `Settings.of` back.
"""

from dataclasses import asdict, dataclass, fields
from typing import Annotated

import numpy as np

from hashing.base.errors import EngramError, UsageError
from hashing.named_specs import NamedSpec
from hashing.spec import MAX_HEADS, MAX_LAYER, MAX_ORDER, HashSpec, Seeding
from hashing.vocab import CanonicalVocab
from runtime.config import Precision, Recipe, RunConfig
from runtime.model.config import Gate, MemoryConfig, ModelConfig, StreamForm
from runtime.setting import Setting, check

# What a spec that is given outright takes the place of.
ADDRESSING = ("layers", "orders", "heads", "rows_per_head", "seed", "seeding", "pad_token", "boundary_token", "rows_multiple")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    hidden: Annotated[int, Setting("width of the residual stream, a multiple of twice the heads", least=2, most=1 << 16)]
    blocks: Annotated[int, Setting("Transformer blocks", least=1, most=1024)]
    heads: Annotated[int, Setting("attention heads of a block", least=1, most=1024)]
    ffn: Annotated[int, Setting("inner width of the feed-forward networks", least=1, most=1 << 20)]
    tied: Annotated[bool, Setting("whether the output head is the embedding")]
    rope_base: Annotated[float, Setting("base of the rotary positions", above=0)]
    kv_heads: Annotated[int | None, Setting("heads of keys and values; none: as many as heads", least=1, most=1024)] = None
    qk_norm: Annotated[bool, Setting("whether queries and keys are normalised")] = False
    streams: Annotated[int, Setting("residual streams; more than one are joined by hyper-connections", least=1, most=64)] = 1
    stream_form: Annotated[StreamForm, Setting("of hyper-connections: v4 or single_pass (V4.1)")] = "v4"
    experts: Annotated[int, Setting("routed experts of a block; 0: dense", least=0, most=1 << 16)] = 0
    experts_per_token: Annotated[int, Setting("routed experts that a token reads", least=1, most=1024)] = 2
    shared_experts: Annotated[int, Setting("experts that every token reads", least=0, most=1024)] = 1
    expert_ffn: Annotated[int, Setting("inner width of an expert", least=1, most=1 << 20)] = 128
    dense_blocks: Annotated[int, Setting("first blocks without experts", least=0, most=1024)] = 1
    router_scale: Annotated[float, Setting("of the weights of the experts chosen", above=0)] = 1.0

    def __post_init__(self) -> None:
        check(self, "model")
        if self.hidden % (2 * self.heads):
            raise UsageError(
                f"model.hidden {self.hidden} does not split into {self.heads} heads of even width",
                hint=f"set {_hidden_that_splits(self.hidden, self.heads)}",
            )
        if self.heads % (self.kv_heads or self.heads):
            shares = [count for count in range(1, self.heads + 1) if self.heads % count == 0]
            raise UsageError(
                f"model.heads {self.heads} do not share {self.kv_heads} heads of keys and values evenly",
                hint=f"set model.kv_heads to one of {_listed(tuple(shares))}",
            )
        if self.experts and self.experts_per_token > self.experts:
            raise UsageError(
                f"model.experts_per_token is {self.experts_per_token}, but there are {self.experts} experts",
                hint=f"set model.experts_per_token to {self.experts} at most, or model.experts to more",
            )


def _hidden_that_splits(hidden: int, heads: int) -> str:
    """The widths next to `hidden` that so many heads split, or the number of heads nearest to `heads` that splits it."""
    unit = 2 * heads
    below = hidden // unit * unit
    widths = " or ".join(str(width) for width in (below, below + unit) if width)
    if hidden % 2:
        return f"model.hidden to {widths}"
    divisors = [count for count in range(1, hidden // 2 + 1) if hidden // 2 % count == 0]
    nearest = min(divisors, key=lambda count: (abs(count - heads), count))
    return f"model.hidden to {widths}, or model.heads to {nearest}"


@dataclass(frozen=True, slots=True)
class MemorySettings:
    layers: Annotated[tuple[int, ...], Setting("blocks with a memory, from 0, ascending", least=0, most=MAX_LAYER)]
    orders: Annotated[tuple[int, ...], Setting(f"n-grams that are looked up: 2 to N, which is {MAX_ORDER} at most")]
    heads: Annotated[int, Setting("hashes of each order", least=1, most=MAX_HEADS)]
    rows_per_head: Annotated[int, Setting("rows of a head's table; the next free prime is taken", least=2)]
    head_dim: Annotated[int, Setting("numbers of a row", least=1, most=1 << 16)]
    gate: Annotated[Gate, Setting("signed_sqrt (released models), sigmoid (paper), or none: always open")]
    conv: Annotated[bool, Setting("whether a causal convolution follows the gate")]
    kernel: Annotated[int, Setting("positions that the convolution reads, as far apart as N", least=1, most=1024)]
    conv_zero_init: Annotated[bool, Setting("whether it starts at zeros (paper) or is drawn (demo)")]
    bias: Annotated[bool, Setting("whether the projection has a bias")]
    pad_token: Annotated[int | None, Setting("token id read before the start; none: the vocabulary's own pad", least=0)]
    boundary_token: Annotated[int | None, Setting("token id that look-back never crosses, or none", least=0)]
    rows_multiple: Annotated[int, Setting("rows of a layer are padded up to a multiple of this", least=1)]
    seed: Annotated[int, Setting("of the hashes", least=0)]
    seeding: Annotated[Seeding, Setting("rule of the hashes: numpy (DeepSeek) or splitmix64 (Qwen)")]

    def __post_init__(self) -> None:
        check(self, "memory")
        if not self.layers:
            raise UsageError("memory.layers is empty, expected block numbers", hint="--no-memory trains without memory")
        if self.layers != (ascending := tuple(sorted(set(self.layers)))):
            raise UsageError(
                f"memory.layers are {_listed(self.layers)}, expected each block once and ascending",
                hint=f"set memory.layers to {_listed(ascending)}",
            )
        largest = min(max([2, *self.orders]), MAX_ORDER)
        if self.orders != (nearest := tuple(range(2, largest + 1))):
            raise UsageError(
                f"memory.orders are {_listed(self.orders)}, expected 2 to N without a gap, N being {MAX_ORDER} at most",
                hint=f"set memory.orders to {_listed(nearest)}",
            )

    @classmethod
    def named(cls, spec: NamedSpec) -> "MemorySettings":
        """The addressing of a named spec, and the module as the defaults of MemoryConfig have it."""
        width = (spec.max_order - 1) * spec.heads * spec.head_dim
        return cls._from(spec, MemoryConfig(spec.layers, width, spec.max_order))

    @classmethod
    def _from(cls, spec: NamedSpec, memory: MemoryConfig) -> "MemorySettings":
        return cls(
            layers=spec.layers,
            orders=tuple(range(2, spec.max_order + 1)),
            heads=spec.heads,
            rows_per_head=spec.base_rows,
            head_dim=spec.head_dim,
            gate=memory.gate,
            conv=memory.conv,
            kernel=memory.kernel,
            conv_zero_init=memory.conv_zero_init,
            bias=memory.bias,
            pad_token=spec.pad_token_id,
            boundary_token=spec.boundary_token_id,
            rows_multiple=spec.rows_multiple,
            seed=spec.seed,
            seeding=spec.seeding,
        )

    @classmethod
    def of(cls, spec: HashSpec, memory: MemoryConfig, vocab: CanonicalVocab) -> "MemorySettings":
        """Settings that give the spec over the vocabulary again. Raises EngramError where there are none."""
        if spec.seed is None or spec.seeding is None:
            raise _not_expressible("its multipliers follow from no seed")
        firsts = np.unique(vocab.mapping, return_index=True)[1]  # the first token id of each canonical id
        if max(spec.pad_id, spec.boundary_id or 0) >= len(firsts):
            raise _not_expressible("its pad or boundary is beyond the vocabulary")
        named = NamedSpec(
            layers=spec.layers,
            max_order=spec.max_order,
            heads=spec.heads,
            base_rows=spec.primes[0][0][0],
            head_dim=memory.width // spec.columns,
            pad_token_id=int(firsts[spec.pad_id]),
            seeding=spec.seeding,
            seed=spec.seed,
            boundary_token_id=None if spec.boundary_id is None else int(firsts[spec.boundary_id]),
            rows_multiple=spec.rows_multiple,
        )
        if named.spec(vocab) != spec:
            raise _not_expressible("its primes or its vocabulary are others")
        return cls._from(named, memory)

    def spec(self, vocab: CanonicalVocab) -> HashSpec:
        """The spec over a vocabulary. Raises UsageError when that lacks the pad or the boundary token."""
        for name, token_id in (("pad_token", self.pad_token), ("boundary_token", self.boundary_token)):
            if token_id is not None and token_id >= (size := len(vocab.tokens)):
                raise UsageError(f"memory.{name} is {token_id}, but the vocabulary has {size} tokens", hint="ids count from 0")
        return self.addressing.spec(vocab)

    @property
    def addressing(self) -> NamedSpec:
        """What they say of addresses and rows, whatever the vocabulary."""
        return NamedSpec(
            layers=self.layers,
            max_order=self.orders[-1],
            heads=self.heads,
            base_rows=self.rows_per_head,
            head_dim=self.head_dim,
            pad_token_id=self.pad_token,
            seeding=self.seeding,
            seed=self.seed,
            boundary_token_id=self.boundary_token,
            rows_multiple=self.rows_multiple,
        )

    def config(self, spec: HashSpec) -> MemoryConfig:
        """The memory module for a spec, rows as wide as `head_dim`."""
        module = {name: getattr(self, name) for name in ("gate", "conv", "kernel", "conv_zero_init", "bias")}
        return MemoryConfig(spec.layers, spec.columns * self.head_dim, spec.max_order, **module)


@dataclass(frozen=True, slots=True)
class Settings:
    preset: Annotated[str, Setting("what it began from; what is not said here is the preset's")]
    model: ModelSettings
    memory: MemorySettings | None  # None: a run without memory
    recipe: Recipe
    precision: Annotated[Precision | None, Setting("of products in training: float32, bfloat16; none: the faster here")] = None

    def check_layers(self, layers: tuple[int, ...], where: str) -> None:
        """Raises UsageError when a memory's layers are not all blocks of the model."""
        if layers[-1] >= self.model.blocks:
            raise UsageError(
                f"{where} are {_listed(layers)}, but the model's blocks are 0 to {self.model.blocks - 1}",
                hint=f"set memory.layers among 0 to {self.model.blocks - 1}, or model.blocks to {layers[-1] + 1} or more",
            )

    def resolve(self, vocab: CanonicalVocab, precision: Precision, spec: HashSpec | None = None) -> RunConfig:
        """The configuration over a vocabulary; a `spec` given outright takes the place of what the memory says of addresses.

        Products are in `precision` where the settings leave that open. Raises UsageError for layers beyond the model's blocks.
        """
        assert spec is None or self.memory is not None, "a spec is for a run with memory"
        if self.memory and spec is None:
            self.check_layers(self.memory.layers, "memory.layers")
            spec = self.memory.spec(vocab)
        elif spec:
            self.check_layers(spec.layers, "the layers of the spec")
        memory = self.memory.config(spec) if self.memory and spec else None
        model = ModelConfig(vocab_size=len(vocab.tokens), memory=memory, **asdict(self.model))
        return RunConfig(self.preset, spec, model, self.recipe, self.precision or precision)

    @classmethod
    def of(cls, config: RunConfig, vocab: CanonicalVocab) -> "Settings":
        """Settings that give the configuration over the vocabulary again. Raises EngramError where none do."""
        own = config.model
        model = ModelSettings(**{field.name: getattr(own, field.name) for field in fields(ModelSettings)})
        memory = MemorySettings.of(config.spec, own.memory, vocab) if config.spec and own.memory else None
        return cls(config.preset, model, memory, config.recipe, config.precision)


def _not_expressible(reason: str) -> EngramError:
    return EngramError(
        f"no settings express the hash spec of this run: {reason}",
        hint="engram hash TEXT --save-spec FILE writes it, and engram train --spec FILE uses it",
    )


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers)) or "empty"
