"""Published models, which are planned here and not trained: the paper's four, and what is known of DeepSeek-V4.1.

The paper leaves its shapes out. These follow from its counts, and from the 27B column of the paper on manifold-constrained
hyper-connections (arXiv 2512.24880). Of V4.1 the tables and the projections of the memory are published.
"""

from dataclasses import dataclass

from hashing.named_specs import NAMED_SPECS, NamedSpec
from runtime.plan.shape import NO_MEMORY, Backbone, ExpertsShape, LatentAttention, MemoryShape, ModelShape

PAPER_HIDDEN, PAPER_CONTEXT = 2560, 4096
PAPER_KERNEL = 4


@dataclass(frozen=True, slots=True)
class Published:
    hidden: int
    backbone: Backbone | None
    spec: str | None  # the name of its addressing; None: it has no memory
    kernel: int | None  # of the memory's convolution
    matrices_only: bool
    streams: int = 4
    context: int = PAPER_CONTEXT

    def shape(self, name: str) -> ModelShape:
        memory = _memory(NAMED_SPECS[self.spec], self.kernel) if self.spec else NO_MEMORY
        encoding = NAMED_SPECS[self.spec].encoding if self.spec else "float32"
        return ModelShape(name, self.hidden, self.streams, self.backbone, memory, encoding, self.context, self.matrices_only)


def _memory(named: NamedSpec, kernel: int | None) -> MemoryShape:
    spec = named.bare_spec()
    return MemoryShape({layer: spec.rows(layer) for layer in spec.layers}, spec.columns, named.head_dim, kernel, bias=False)


def _paper(experts: int, spec: str | None) -> Published:
    """A model of the paper with so many routed experts; with none its blocks are all dense."""
    backbone = Backbone(
        vocab_size=129_280,
        tied=True,  # its totals count one matrix of the vocabulary
        blocks=30,
        attention=LatentAttention(PAPER_HIDDEN, heads=32, plain_dim=128, rotary_dim=64, value_dim=128, rank=512),
        ffn=12_288,
        experts=ExpertsShape(experts, per_token=6, shared=2, inner=1536) if experts else None,
        dense_blocks=1,
        stream_form="v4",
    )
    return Published(PAPER_HIDDEN, backbone, spec, PAPER_KERNEL, matrices_only=True)


PUBLISHED = {
    "engram-27b": _paper(55, "engram-27b"),
    "engram-40b": _paper(55, "engram-40b"),
    "moe-27b": _paper(72, None),
    "dense-4b": _paper(0, None),
    "deepseek-v4.1": Published(5120, None, "deepseek-v4.1", kernel=None, matrices_only=False),
}
