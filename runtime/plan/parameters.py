"""How many numbers a model is made of, by what they are for, and how many of them a token reads.

Vectors are gains, biases, the bases and scales of residual streams, and the memory's convolution, which has a vector for each
position that it reads. Of the paper's models matrices alone are counted: what vectors they have is not published.
"""

from dataclasses import dataclass

from runtime.plan.shape import Backbone, ExpertsShape, ModelShape


@dataclass(frozen=True, slots=True)
class BackboneParameters:
    vocabulary: int  # the embedding, and the output head where that is another matrix
    maps: int  # matrices between hidden states that every token reads
    experts: int  # matrices of routed experts
    active_experts: int  # of those, what a token reads
    choosing: int  # matrices of routers and of residual streams
    vectors: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """Active are those that a token reads, without embedding and head, as the paper counts them (section 3.1)."""

    backbone: BackboneParameters | None  # None: not published
    memory_maps: int  # the projections from rows to keys and values
    memory_vectors: int
    tables: int
    rows_read: int  # numbers of the rows that a token reads

    @property
    def memory(self) -> int:
        """Of the modules, without their tables."""
        return self.memory_maps + self.memory_vectors

    @property
    def trained_densely(self) -> int | None:
        """All but the tables."""
        own = self.backbone
        return None if own is None else own.vocabulary + own.maps + own.experts + own.choosing + own.vectors + self.memory

    @property
    def maps(self) -> int | None:
        """Numbers of all matrices between hidden states, which Muon takes."""
        return None if self.backbone is None else self.backbone.maps + self.backbone.experts + self.memory_maps

    @property
    def total(self) -> int | None:
        return None if self.trained_densely is None else self.trained_densely + self.tables

    @property
    def active(self) -> int | None:
        own = self.backbone
        if own is None:
            return None
        return own.maps + own.active_experts + own.choosing + own.vectors + self.memory + self.rows_read

    @property
    def experts(self) -> int | None:
        """Of routed experts, whether a token reads them or not."""
        return None if self.backbone is None else self.backbone.experts

    @property
    def rho_percent(self) -> float | None:
        """ρ: of the parameters that a token does not read, the share that experts have; the rest are rows.

        Embedding and head are counted on neither side. None where nothing is left unread, and where the backbone is not known.
        """
        if self.backbone is None:
            return None
        idle = self.backbone.experts - self.backbone.active_experts
        sparse = idle + self.tables - self.rows_read
        return 100 * idle / sparse if sparse else None


def parameters(shape: ModelShape) -> Parameters:
    memory = shape.memory
    width, modules = memory.columns * memory.head_dim, len(memory.rows)
    projected = (shape.streams + 1) * shape.hidden  # a key for each stream, and the value
    gains = 2 * shape.streams * shape.hidden
    conv = 0 if memory.kernel is None else (memory.kernel + 1) * shape.streams * shape.hidden  # with its norm's gains
    return Parameters(
        backbone=None if shape.backbone is None else _backbone(shape, shape.backbone),
        memory_maps=modules * projected * width,
        memory_vectors=0 if shape.matrices_only else modules * (gains + conv + memory.bias * projected),
        tables=memory.total_rows * memory.head_dim,
        rows_read=memory.rows_per_token * memory.head_dim,
    )


def feed_forward(hidden: int, inner: int) -> int:
    """Numbers of a SwiGLU network's three matrices."""
    return 3 * hidden * inner


def stream_maps(streams: int) -> int:
    """Outputs of a sub-layer's map of streams: what it reads, what it writes, how the streams are mixed."""
    return 2 * streams + streams * streams


def _backbone(shape: ModelShape, own: Backbone) -> BackboneParameters:
    hidden = shape.hidden
    dense = (own.blocks - own.expert_blocks) * feed_forward(hidden, own.ffn)
    shared, routed, active, routers = (own.expert_blocks * n for n in _experts(own.experts, hidden))
    stream_matrices, stream_vectors = _streams(own, hidden, shape.streams)
    gains = (2 * own.blocks + 1) * hidden + own.blocks * own.attention.gains
    return BackboneParameters(
        vocabulary=(1 if own.tied else 2) * own.vocab_size * hidden,
        maps=own.blocks * own.attention.maps + dense + shared,
        experts=routed,
        active_experts=active,
        choosing=routers + stream_matrices,
        vectors=0 if shape.matrices_only else gains + stream_vectors,
    )


def _experts(experts: ExpertsShape | None, hidden: int) -> tuple[int, int, int, int]:
    """Of a block: numbers of shared experts, of routed ones, of those a token reads, and of the router."""
    if experts is None:
        return 0, 0, 0, 0
    one = feed_forward(hidden, experts.inner)
    return experts.shared * one, experts.routed * one, experts.per_token * one, experts.routed * hidden


def _streams(own: Backbone, hidden: int, streams: int) -> tuple[int, int]:
    """Numbers of matrices, and of bases and scales: two maps in a block, and in V4's form one at the end that only reads."""
    if streams == 1:
        return 0, 0
    sites, outputs = 2 * own.blocks, stream_maps(streams)
    at_end = streams if own.stream_form == "v4" else 0
    scales = 3 * sites + (1 if at_end else 0)
    return (sites * outputs + at_end) * streams * hidden, sites * outputs + at_end + scales
