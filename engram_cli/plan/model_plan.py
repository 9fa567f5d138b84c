"""How `engram plan` prints what a whole model will cost."""

from typing import TYPE_CHECKING

from engram_cli.output import byte_text, print_table

if TYPE_CHECKING:
    from runtime.plan.model_plan import ModelPlan

UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"))


def print_plan(plan: "ModelPlan") -> None:
    _print_parameters(plan)
    _print_flops(plan)
    _print_bytes(plan)
    if plan.shape.memory.rows:
        _print_bandwidth(plan)


def _print_parameters(plan: "ModelPlan") -> None:
    counted, own = plan.parameters, plan.parameters.backbone
    counts: dict[str, int | None] = {
        "all": counted.total,
        "· tables": counted.tables,
        "· routed experts": counted.experts,
        "· memory modules": counted.memory,
        "· embedding and head": None if own is None else own.vocabulary,
        "· all else": None if own is None else own.maps + own.choosing + own.vectors,
        "active": counted.active,
    }
    rows = ((name, count, short(count)) for name, count in counts.items())
    print_table(f"Parameters of {plan.shape.name}", ("", "number", "in short"), rows)
    print("active: what a token reads, without embedding and head")
    if counted.rho_percent is not None:
        print(f"ρ {counted.rho_percent:.1f} %: the share of routed experts in what it does not read; the rest are rows")
    if own is None:
        print("– what is not published: of this model the tables and the memory's projections are known")
    if plan.shape.matrices_only:
        print("matrices alone are counted: the vectors (gains, biases, convolutions) are not published")


def _print_flops(plan: "ModelPlan") -> None:
    work = plan.flops
    parts = {
        "attention": work.attention,
        "feed-forward": work.ffn,
        "residual streams": work.streams,
        "output head": work.head,
        "memory": work.memory,
        "all": work.total,
    }
    print_table(
        "FLOPs of a token, forward", ("", "number", "in short"), ((name, count, short(count)) for name, count in parts.items())
    )
    print(f"attending to {plan.context:,} positions; 2 for each multiply-add of a matrix product, all else uncounted")


def _print_bytes(plan: "ModelPlan") -> None:
    sizes = {
        f"tables as {plan.encoding.name}": plan.table_bytes,
        "all else in float32": plan.model_bytes,
        **{f"its moments, {name}": size for name, size in plan.backbone_moment_bytes.items()},
    }
    print_table("Bytes", ("", "size", "bytes"), ((name, _size(size), size) for name, size in sizes.items()))
    moments, whole = plan.row_moment_bytes, plan.checkpoint_bytes
    rows = ((rule, _size(moments[rule]), _size(whole[rule])) for rule in moments)
    print_table("Bytes by the rule of rows", ("", "moments of rows", "checkpoint"), rows)
    print("a checkpoint is whole: all numbers in float32, with the moments of adamw and of the rule")


def _print_bandwidth(plan: "ModelPlan") -> None:
    memory = plan.shape.memory
    flows = {"decoding": plan.decoding, **{f"training, {rule}": by_place for rule, by_place in plan.training.items()}}
    rows = [
        (name, *(_size(flow.read_bytes_per_sec + flow.written_bytes_per_sec) for flow in by_place.values()))
        for name, by_place in flows.items()
    ]
    print_table(f"Bytes a second at {plan.tokens_per_sec:,.0f} tokens/s", ("", "device", "host", "disk"), rows)
    print("device: its memory; host: the link between the two; disk: pages of the drive. Read and written together,")
    print("as if no row were read twice and no page were in memory")
    layers = ", ".join(f"{rows:,} in layer {layer}" for layer, rows in memory.rows.items())
    print(f"a token reads {memory.rows_per_token} rows of {plan.row_bytes} bytes; there are {layers}")


def _size(count: float | None) -> str | None:
    return None if count is None else byte_text(count, 2)


def short(count: int | None) -> str | None:
    """A count in thousands of thousands or more, with three digits after the point."""
    if count is None:
        return None
    for size, unit in UNITS:
        if count >= size:
            return f"{count / size:,.3f} {unit}"
    return f"{count:,}"
