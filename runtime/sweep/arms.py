"""The arms of every sweep. The first of each is what the others are compared with."""

from collections.abc import Callable, Sequence

from hashing.base.errors import UsageError
from runtime.settings import Settings
from runtime.sweep.arm import Arm, allocated, arm, columns, experts_for_tables, memory_of, wider_ffn
from runtime.train.choice import changed, set_change

FROZEN_STD = 0.15  # of rows that are not trained: that of trained ones at the end, each counted as often as it is read
RHO_PERCENTS = (100, 40, 60, 70, 80, 90)
ALLOCATED = ("model.experts=128", "model.expert_ffn=128", "model.experts_per_token=2", "model.shared_experts=1")
ROWS = (500, 2_000, 8_000, 32_000, 128_000, 512_000)  # of a head
PLACED_BLOCKS = 4


def controls(base: Settings) -> list[Arm]:
    """What the memory is worth beside none, beside rows that say nothing, and beside its cost spent elsewhere."""
    return [
        arm("memory", base),
        arm("none", base, "memory=none"),
        arm("none-equal-time", base, "memory=none", equal_time=True),
        arm("frozen-rows", base, "recipe.rows=frozen", f"recipe.row_std={FROZEN_STD}"),
        arm("equal-rows", base, "recipe.rows=equal", f"recipe.row_std={FROZEN_STD}"),
        arm("wider-ffn", base, *wider_ffn(base)),
        arm("experts", base, *experts_for_tables(base)),
    ]


def allocation(base: Settings) -> list[Arm]:
    """Sparse parameters divided between routed experts and rows; of a model without experts, one is made with them."""
    memory_of(base)
    mixed = base if base.model.experts else changed(base, [set_change(ALLOCATED)])
    if not 0 < mixed.model.dense_blocks < mixed.model.blocks:
        raise UsageError(
            f"{mixed.model.dense_blocks} of {mixed.model.blocks} blocks are dense, and allocation needs both kinds of blocks",
            hint="set model.dense_blocks to 1, and model.blocks to 2 or more",
        )
    return [arm(f"rho-{percent}", mixed, *allocated(mixed, percent)) for percent in RHO_PERCENTS]


def rows(base: Settings) -> list[Arm]:
    """Tables from small to large, in steps of four times; a step costs the same with all of them."""
    memory_of(base)
    sizes = [arm(f"rows-{count}", base, f"memory.rows_per_head={count}") for count in ROWS]
    return [arm("none", base, "memory=none"), *sizes]


def placement(base: Settings) -> list[Arm]:
    """One memory in each block, or two that share as many rows."""
    memory = memory_of(base)
    deep = base if base.model.blocks > 2 else changed(base, [set_change([f"model.blocks={PLACED_BLOCKS}"])])
    blocks, rows_of_all = range(deep.model.blocks), memory.rows_per_head * len(memory.layers)
    places = [(block,) for block in blocks] + [(0, block) for block in blocks[1:]]
    found = [_placed(deep, layers, rows_of_all) for layers in places]
    return [arm("none", deep, "memory=none"), *found]


def _placed(base: Settings, layers: tuple[int, ...], rows_of_all: int) -> Arm:
    listed = ",".join(map(str, layers))
    name = f"block-{listed.replace(',', '+')}"
    return arm(name, base, f"memory.layers={listed}", f"memory.rows_per_head={rows_of_all // len(layers)}")


def ablation(base: Settings) -> list[Arm]:
    """The memory without a part, or with more of one, at the same number of parameters in tables."""
    memory = memory_of(base)
    numbers = columns(memory) * memory.rows_per_head  # of rows in a layer
    width = memory.heads * memory.head_dim  # of an order's vectors

    def orders(longest: int) -> Arm:
        listed = ",".join(map(str, range(2, longest + 1)))
        rows_per_head = numbers // ((longest - 1) * memory.heads)
        return arm(f"orders-to-{longest}", base, f"memory.orders={listed}", f"memory.rows_per_head={rows_per_head}")

    def heads(count: int) -> Arm:
        return arm(f"heads-{count}", base, f"memory.heads={count}", f"memory.head_dim={width // count}")

    return [
        arm("memory", base),
        arm("none", base, "memory=none"),
        arm("no-gate", base, "memory.gate=none"),
        arm("sigmoid-gate", base, "memory.gate=sigmoid"),
        arm("no-convolution", base, "memory.conv=false"),
        arm("raw-vocabulary", base, rule="identity"),
        *(orders(longest) for longest in (2, 3, 4) if longest != memory.orders[-1]),
        *(heads(count) for count in (1, 2, 8) if count != memory.heads and width % count == 0),
        arm("streams-2", base, "model.streams=2"),
        arm("streams-2-none", base, "model.streams=2", "memory=none"),
    ]


def optimiser(base: Settings) -> list[Arm]:
    """Every optimiser of the backbone with every rule for rows: each with its own momentum, row-wise Adam with none too."""
    memory_of(base)
    rules = {"adam": ("adam", "none"), "rowwise": ("rowwise_adam", "none"), "rowwise-0": ("rowwise_adam", "0")}
    rules["sinkhorn"] = ("sinkhorn", "none")
    return [
        arm(
            f"{maps}-{name}",
            base,
            f"recipe.optimizer={maps}",
            f"recipe.row_rule={rule}",
            f"recipe.row_momentum={momentum}",
        )
        for maps in ("adamw", "muon")
        for name, (rule, momentum) in rules.items()
    ]


SWEEPS: dict[str, Callable[[Settings], Sequence[Arm]]] = {
    made.__name__: made for made in (controls, allocation, rows, placement, ablation, optimiser)
}


def arms_of(name: str, base: Settings) -> Sequence[Arm]:
    """Raises UsageError for a sweep that there is not, for settings without memory, and for a training by minutes."""
    if name not in SWEEPS:
        raise UsageError(f'no sweep is called "{name}"', hint=f"the names are {', '.join(SWEEPS)}")
    if base.recipe.steps is None:
        raise UsageError("the trainings of a sweep are as long as their steps, found minutes", hint="as in --steps 600")
    return SWEEPS[name](base)
