"""The arms of sweeps, by the models and tables that they come to: what is to be the same between them is."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hashing.base.errors import UsageError
from runtime.model.language_model import LanguageModel
from runtime.settings import Settings
from runtime.sweep.arm import Arm
from runtime.sweep.arms import ROWS, SWEEPS, arms_of
from runtime.train.choice import chosen_settings
from tests.vocabularies import raw_vocab

VOCAB = raw_vocab(300)
LENGTH = 16
BASES = {
    "tiny": chosen_settings(preset="tiny"),
    "nano": chosen_settings(preset="nano"),
    "other": chosen_settings(
        preset="nano",
        sets=["model.blocks=3", "model.hidden=96", "memory.layers=0,2", "memory.heads=3", "memory.rows_per_head=9000"],
    ),
}


@cache
def arms(name: str, base: str) -> dict[str, Arm]:
    return {arm.name: arm for arm in arms_of(name, BASES[base])}


@cache
def size(settings: Settings) -> tuple[int, int, float]:
    """All parameters, those in tables, and FLOPs per token of matrix products, of the real model."""
    config = settings.resolve(VOCAB, "float32")
    model = LanguageModel(config.model)
    tables = config.spec.total_rows * config.head_dim if config.spec else 0
    ids = torch.zeros(1, LENGTH, dtype=torch.long)
    width = config.model.memory.width if config.model.memory else 0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.logits(ids, (lambda _: torch.zeros(1, LENGTH, width)) if width else None)
    return sum(p.numel() for p in model.parameters()) + tables, tables, counter.get_total_flops() / LENGTH


@pytest.mark.parametrize("base", BASES)
def test_a_wider_network_costs_what_the_memory_costs(base: str) -> None:
    found = arms("controls", base)
    memory, none, wider = (size(found[name].settings) for name in ("memory", "none", "wider-ffn"))
    assert none[2] < memory[2]
    assert wider[2] == pytest.approx(memory[2], rel=0.005)
    assert wider[0] == pytest.approx(memory[0] - memory[1], rel=0.01)


@pytest.mark.parametrize("base", BASES)
def test_experts_have_the_parameters_of_tables_at_the_cost_of_the_memory(base: str) -> None:
    found = arms("controls", base)
    memory, experts = size(found["memory"].settings), size(found["experts"].settings)
    assert experts[0] == pytest.approx(memory[0], rel=0.02)
    assert experts[1] == 0
    assert experts[2] == pytest.approx(memory[2], rel=0.03)


def test_experts_for_tables_that_are_too_large_are_the_most_at_that_cost() -> None:
    base = chosen_settings(preset="nano", sets=["memory.rows_per_head=2000000"])
    found = {arm.name: arm.settings for arm in arms_of("controls", base)}
    none = replace(found["memory"], memory=None)
    assert size(found["experts"])[2] == pytest.approx(size(found["wider-ffn"])[2], rel=0.02)
    assert size(found["experts"])[0] > 5 * size(none)[0]


@pytest.mark.parametrize("base", BASES)
def test_frozen_and_equal_rows_differ_from_the_memory_in_their_rows_alone(base: str) -> None:
    found = arms("controls", base)
    memory = found["memory"].settings
    for name, rows in (("frozen-rows", "frozen"), ("equal-rows", "equal")):
        recipe = found[name].settings.recipe
        assert (recipe.rows, recipe.row_std) == (rows, 0.15)
        assert replace(found[name].settings, recipe=replace(recipe, rows="trained", row_std=memory.recipe.row_std)) == memory
    assert found["none"].settings == found["none-equal-time"].settings == replace(memory, memory=None)
    assert [arm.name for arm in found.values() if arm.equal_time] == ["none-equal-time"]


@pytest.mark.parametrize("base", BASES)
def test_every_allocation_has_the_same_parameters_and_the_same_cost(base: str) -> None:
    found = arms("allocation", base)
    sizes = {name: size(arm.settings) for name, arm in found.items()}
    totals, tables, flops = ([one[place] for one in sizes.values()] for place in range(3))
    assert max(totals) < 1.01 * min(totals)
    assert max(flops) < 1.04 * min(flops)  # each expert has a row in the router
    assert sizes["rho-100"][1] == 0
    sparse = 124 * (3 * 128 + 1) * found["rho-100"].settings.model.hidden * (found["rho-100"].settings.model.blocks - 1)
    for name, one in sizes.items():
        assert 100 * (1 - one[1] / sparse) == pytest.approx(int(name[4:]), abs=3), tables


def test_allocation_takes_the_experts_that_the_settings_have() -> None:
    base = chosen_settings(preset="tiny", sets=["model.experts=32", "model.expert_ffn=64", "model.blocks=4"])
    found = {arm.name: arm.settings.model for arm in arms_of("allocation", base)}
    assert (found["rho-100"].experts, found["rho-100"].expert_ffn, found["rho-100"].blocks) == (32, 64, 4)
    assert found["rho-40"].experts == 2 + round(0.4 * 30)


@pytest.mark.parametrize("base", BASES)
def test_tables_of_every_size_cost_the_same(base: str) -> None:
    found = arms("rows", base)
    memories = {name: one.settings for name, one in found.items() if name != "none"}
    assert list(memories) == [f"rows-{count}" for count in ROWS]
    costs = {size(replace(one, memory=replace(one.memory, rows_per_head=50)))[2] for one in memories.values() if one.memory}
    assert len(costs) == 1
    assert [one.memory.rows_per_head for one in memories.values() if one.memory] == [*ROWS]


@pytest.mark.parametrize("base", BASES)
def test_placements_and_ablations_have_tables_of_one_size(base: str) -> None:
    for name in ("placement", "ablation"):
        tables = [size(arm.settings)[1] for arm in arms(name, base).values() if arm.settings.memory]
        assert len(tables) >= 5
        assert max(tables) < 1.06 * min(tables)  # the next primes of small tables


def test_every_ablation_is_another_configuration() -> None:
    for base in BASES:
        found = list(arms("ablation", base).values())
        assert len({(arm.settings, arm.rule) for arm in found}) == len(found)
        assert {arm.rule for arm in found if arm.name != "raw-vocabulary"} == {"engram"}


def test_placement_goes_through_all_blocks_of_a_deeper_model() -> None:
    layers = [arm.settings.memory.layers for arm in arms("placement", "tiny").values() if arm.settings.memory]
    assert layers == [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize(
    ("name", "sets", "message"),
    [
        ("control", [], 'no sweep is called "control"'),
        *((name, ["memory=none"], "leave the memory out") for name in SWEEPS),
        ("rows", ["recipe.steps=none", "recipe.minutes=2"], "as long as their steps, found minutes"),
        ("allocation", ["model.experts=8", "model.dense_blocks=0"], "0 of 2 blocks are dense"),
        ("allocation", ["model.experts=8", "model.dense_blocks=2"], "2 of 2 blocks are dense"),
        ("allocation", ["model.blocks=1", "memory.layers=0"], "1 of 1 blocks are dense"),
    ],
)
def test_settings_that_no_sweep_can_be_made_of_are_refused(name: str, sets: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        arms_of(name, chosen_settings(preset="tiny", sets=sets))
    assert refused.value.hint
