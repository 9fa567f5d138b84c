"""FLOPs of a forward pass for each token, by part.

A multiply-add of a matrix product counts 2. What is done number by number counts nothing: norms, gates, rotations, the memory's
convolution, and reading rows. Attention is to as many positions as the context has; within a causal sequence of that length it
is half of that on average. A step of training takes about three times as many.
"""

from dataclasses import asdict, dataclass

from runtime.plan.parameters import Parameters, stream_maps
from runtime.plan.shape import Backbone, ModelShape


@dataclass(frozen=True, slots=True)
class Flops:
    """None where the backbone is not published."""

    attention: int | None
    ffn: int | None  # dense networks, shared experts, those that are chosen, and routers
    streams: int | None
    head: int | None
    memory: int

    @property
    def total(self) -> int | None:
        parts = [part for part in asdict(self).values() if part is not None]
        return sum(parts) if self.attention is not None else None


def flops(shape: ModelShape, counted: Parameters, context: int) -> Flops:
    """For a token that attends to `context` positions; `counted` are the shape's own parameters."""
    own, found, memory = shape.backbone, counted.backbone, 2 * counted.memory_maps
    if own is None or found is None:
        return Flops(None, None, None, None, memory)
    projections = own.blocks * own.attention.maps
    routers = own.expert_blocks * own.experts.routed * shape.hidden if own.experts else 0
    return Flops(
        attention=2 * (projections + own.blocks * own.attention.products_per_position * context),
        ffn=2 * (found.maps - projections + found.active_experts + routers),
        streams=2 * _stream_products(own, shape.hidden, shape.streams),
        head=2 * own.vocab_size * shape.hidden,
        memory=memory,
    )


def _stream_products(own: Backbone, hidden: int, streams: int) -> int:
    """Multiply-adds of a token: at each sub-layer the map, the streams collapsed and mixed; at the end they are collapsed."""
    if streams == 1:
        return 0
    numbers = streams * hidden
    site = (stream_maps(streams) + 1 + streams) * numbers
    end = (streams + 1) * numbers if own.stream_form == "v4" else numbers
    return 2 * own.blocks * site + end
