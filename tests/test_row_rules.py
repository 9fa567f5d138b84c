"""Rules of rows: the compiled forms equal torch's operations, and those the whole-table rules where every row is read."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from runtime.config import RowRule
from runtime.plan.row_bytes import row_state_bytes
from runtime.train.row_rules import BETAS, EPS, Gradients
from runtime.train.row_table import RowTable

RULES: list[RowRule] = ["adam", "rowwise_adam", "sinkhorn"]
RATE = 0.01


def table(rows: int, head_dim: int, rule: RowRule, seed: int = 0, momentum: float | None = None) -> RowTable:
    return RowTable.create(rows, head_dim, 0.02, seed, torch.device("cpu"), rule, momentum)


def moved(kept: RowTable, rows: Tensor, values: Tensor, in_torch: bool = False) -> RowTable:
    """The table after a step of `rows` by gradients."""
    last = kept.state().get("last")
    gradients = Gradients(rows, kept.weight[rows], values.clone(), 1 if last is None else 1 + int(last.max()))
    step: Any = kept.rule.step_in_torch if in_torch else kept.rule.step  # type: ignore[attr-defined]
    step(kept.weight, gradients, RATE)
    return kept


def some_steps(rows: int, head_dim: int, seed: int, steps: int = 5) -> list[tuple[Tensor, Tensor]]:
    """Rows that are read, none twice in a step, and gradients of very different lengths, some of them 0."""
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    found = []
    for _ in range(steps):
        read = torch.from_numpy(np.sort(random.choice(rows, random.integers(1, rows + 1), replace=False)))
        lengths = 10.0 ** torch.empty(len(read), 1).uniform_(-7, 0, generator=generator)
        lengths[torch.rand(len(read), generator=generator) < 0.2] = 0
        found.append((read, torch.randn(len(read), head_dim, generator=generator) * lengths))
    return found


@settings(max_examples=40, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    momentum=st.sampled_from([None, 0.0, 0.5]),
    rows=st.integers(1, 60),
    head_dim=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_the_compiled_rule_is_the_rule_in_torch(
    rule: RowRule, momentum: float | None, rows: int, head_dim: int, seed: int
) -> None:
    one, other = (table(rows, head_dim, rule, momentum=momentum) for _ in range(2))
    for read, values in some_steps(rows, head_dim, seed):
        found, expected = moved(one, read, values).state(), moved(other, read, values, in_torch=True).state()
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=2e-5, atol=1e-6)
            assert len(tensor) == rows


@pytest.mark.parametrize("rule", RULES)
def test_only_rows_that_are_read_change_and_their_steps_are_counted(rule: RowRule) -> None:
    kept = table(1000, 4, rule)
    before = {name: tensor.clone() for name, tensor in kept.state().items()}
    for count in (1, 2):
        leaf = kept.read(np.array([[[5, 900, 5]]]))
        (leaf.batch_vectors() * torch.arange(1.0, 13)).sum().backward()
        kept.step(leaf, RATE, count)
        for name, tensor in kept.state().items():
            assert (tensor != before[name]).flatten(1 if tensor.dim() > 1 else 0).nonzero()[:, 0].unique().tolist() == [5, 900]
        assert kept.state()["updates"][[5, 900]].tolist() == [count, count]


def adam_on(vectors: Tensor, beta1: float = BETAS[0]) -> tuple[torch.nn.Parameter, torch.optim.Adam]:
    whole = torch.nn.Parameter(vectors.clone())
    return whole, torch.optim.Adam([whole], lr=RATE, betas=(beta1, BETAS[1]), eps=EPS)


def adam_step(whole: torch.nn.Parameter, adam: torch.optim.Optimizer, values: Tensor) -> None:
    whole.grad = values.clone()
    adam.step()


@pytest.mark.parametrize("momentum", [None, 0.0, 0.5])
@pytest.mark.parametrize("rule", ["adam", "rowwise_adam"])
def test_where_all_rows_are_read_adam_is_torch_s(rule: RowRule, momentum: float | None) -> None:
    """That with one number a row is Adam too where the numbers of a gradient are equally large."""
    kept, everything = table(6, 4, rule, momentum=momentum), torch.arange(6)
    assert ("moment" in kept.state()) == (momentum != 0)
    whole, adam = adam_on(kept.weight, BETAS[0] if momentum is None else momentum)
    for step in range(8):
        values = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        values = values if rule == "adam" else values.sign() * values.abs().mean(1, keepdim=True)
        adam_step(whole, adam, values)
        torch.testing.assert_close(moved(kept, everything, values).weight, whole.detach())


def test_one_second_moment_a_row_is_the_mean_square() -> None:
    kept, everything = table(6, 4, "rowwise_adam"), torch.arange(6)
    moment, square = np.zeros((6, 4)), np.zeros(6)
    for step in range(1, 8):
        values = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        before, gradient = kept.weight.double().numpy(), values.double().numpy()
        for row in range(6):
            moment[row] = BETAS[0] * moment[row] + (1 - BETAS[0]) * gradient[row]
            square[row] = BETAS[1] * square[row] + (1 - BETAS[1]) * sum(gradient[row] ** 2) / 4
            root = np.sqrt(square[row] / (1 - BETAS[1] ** step)) + EPS
            before[row] -= RATE * moment[row] / (1 - BETAS[0] ** step) / root
        np.testing.assert_allclose(moved(kept, everything, values).weight, before, rtol=1e-5, atol=1e-7)


def test_a_row_has_the_steps_of_adam_that_read_it_and_no_others() -> None:
    """Steps between that did not read it are as if they had not been."""
    kept = table(3, 4, "adam")
    alone, adam = adam_on(kept.weight[1:2])
    values = torch.randn(9, 1, 4, generator=torch.Generator().manual_seed(0))
    for step in range(9):
        read = step in (2, 3, 8)
        moved(kept, torch.tensor([1] if read else [0, 2]), values[step].expand(1 if read else 2, 4))
        if read:
            adam_step(alone, adam, values[step])
        torch.testing.assert_close(kept.weight[1:2], alone.detach())


def test_moments_after_unread_steps_are_those_of_the_whole_table_s_adam_before_they_decayed() -> None:
    kept = table(2, 4, "adam")
    whole, adam = adam_on(kept.weight)
    values = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    for gradient in values:
        adam_step(whole, adam, gradient)
        moved(kept, torch.arange(2), gradient)
    state, at_last_read = kept.state(), kept.weight[0].clone()
    for unread in range(1, 21):
        gradient = torch.stack([torch.zeros(4), torch.ones(4)])
        adam_step(whole, adam, gradient)
        moved(kept, torch.tensor([1]), gradient[1:])
        for name, ours, beta in (("exp_avg", state["moment"], BETAS[0]), ("exp_avg_sq", state["square"], BETAS[1])):
            torch.testing.assert_close(adam.state[whole][name][0], ours[0] * beta**unread, rtol=1e-5, atol=0)
            torch.testing.assert_close(adam.state[whole][name][1], ours[1])
    assert torch.equal(kept.weight[0], at_last_read)
    assert (whole[0] - at_last_read).abs().max() > 5 * RATE, "the whole table's rule went on moving it"


def test_a_row_first_read_late_takes_a_first_step() -> None:
    """Where torch's SparseAdam, which has one count for all rows, moves it by less."""
    kept, late, gradient = table(2, 4, "adam"), 30, torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    whole = torch.nn.Parameter(kept.weight.clone())
    sparse = torch.optim.SparseAdam([whole], lr=RATE, betas=BETAS, eps=EPS)
    for step in range(1, late + 1):
        row = 1 if step == late else 0
        moved(kept, torch.tensor([row]), gradient)
        adam_step(whole, sparse, torch.sparse_coo_tensor([[row]], gradient, (2, 4), check_invariants=True))
    before = table(2, 4, "adam").weight[1]
    beta1, beta2 = BETAS
    share = (1 - beta1) / (1 - beta1**late) / ((1 - beta2) / (1 - beta2**late)) ** 0.5
    torch.testing.assert_close(kept.weight[1], before - RATE * gradient[0].sign())
    torch.testing.assert_close(whole[1].detach(), before - share * RATE * gradient[0].sign())
    assert 0.4 < share < 0.55


class WholeTable:
    """The published rule, which moves every row of the table at every step, in float64."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.moment = weight.double(), torch.zeros_like(weight, dtype=torch.float64)

    def step(self, rows: Tensor, values: Tensor) -> None:
        gradient = torch.zeros_like(self.weight)
        gradient[rows] = values.double()
        self.moment = 0.95 * self.moment + 0.05 * gradient
        update = 0.05 * gradient + 0.95 * self.moment
        lengths = update.norm(dim=1)
        update[lengths <= 1e-3 * lengths.mean()] = 0
        for turn in range(11):
            update = update / (update.norm(dim=1 - turn % 2, keepdim=True) + 1e-20)
        self.weight -= RATE * 0.18 * self.weight.shape[1] ** 0.5 * update


def test_where_all_rows_are_read_balancing_is_the_published_rule() -> None:
    kept = table(50, 8, "sinkhorn")
    whole = WholeTable(kept.weight)
    for values in torch.randn(20, 50, 8, generator=torch.Generator().manual_seed(0)):
        values[3] = 1e-9  # shorter than a thousandth of the mean
        whole.step(torch.arange(50), values)
        moved(kept, torch.arange(50), values)
        torch.testing.assert_close(kept.weight, whole.weight.float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(kept.state()["moment"], whole.moment.float(), rtol=1e-4, atol=1e-8)


def test_the_momentum_of_a_row_that_is_read_is_that_of_the_published_rule() -> None:
    kept = table(40, 8, "sinkhorn")
    whole = WholeTable(kept.weight)
    for read, values in some_steps(40, 8, seed=2, steps=30):
        whole.step(read, values)
        moved(kept, read, values)
        torch.testing.assert_close(kept.state()["moment"][read], whole.moment[read].float(), rtol=1e-4, atol=1e-9)


def test_the_published_rule_goes_on_moving_an_unread_row_by_the_full_distance_and_ours_does_not() -> None:
    kept = table(30, 8, "sinkhorn")
    whole, others = WholeTable(kept.weight), torch.arange(1, 30)
    values = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    whole.step(torch.arange(30), values)
    moved(kept, torch.arange(30), values)
    distance, still = RATE * 0.18 * 8**0.5, kept.weight[0].clone()
    for _ in range(10):
        before = whole.weight[0].clone()
        whole.step(others, values[1:])
        moved(kept, others, values[1:])
        assert (whole.weight[0] - before).norm().item() == pytest.approx(distance, rel=1e-5)
        assert torch.equal(kept.weight[0], still)


def test_every_row_with_a_gradient_moves_as_far_and_columns_alike() -> None:
    kept, rows = table(400, 8, "sinkhorn"), torch.arange(0, 400, 2)
    before = kept.weight.clone()
    values = torch.randn(200, 8) * torch.logspace(-3, 3, 8) * torch.logspace(-1, 1, 200)[:, None]
    steps = (moved(kept, rows, values).weight - before)[rows]
    torch.testing.assert_close(steps.norm(dim=1), torch.full((200,), RATE * 0.18 * 8**0.5), rtol=1e-4, atol=0)
    assert steps.norm(dim=0).max() < 1.02 * steps.norm(dim=0).min()


@pytest.mark.parametrize("rule", RULES)
def test_gradients_of_zeros_move_nothing(rule: RowRule) -> None:
    kept = table(10, 4, rule)
    before = kept.weight.clone()
    moved(kept, torch.arange(10), torch.zeros(10, 4))
    assert torch.equal(kept.weight, before)


@pytest.mark.parametrize("momentum", [None, 0.0])
@pytest.mark.parametrize("rule", RULES)
def test_a_row_takes_as_many_bytes_as_are_planned(rule: RowRule, momentum: float | None) -> None:
    state = table(10, 7, rule, momentum=momentum).state()
    assert sum(tensor.nbytes for tensor in state.values()) == 10 * (4 * 7 + row_state_bytes(rule, 7, momentum))


@pytest.mark.parametrize("rule", RULES)
def test_its_state_is_all_that_it_goes_on_from(rule: RowRule) -> None:
    whole, parts = table(20, 4, rule), table(20, 4, rule)
    steps = some_steps(20, 4, seed=7, steps=8)
    for number, (read, values) in enumerate(steps):
        if number == 4:
            saved, parts = deepcopy(parts.state()), table(20, 4, rule, seed=1)
            for name, kept in parts.state().items():
                kept.copy_(saved[name])
        moved(whole, read, values)
        moved(parts, read, values)
    assert all(torch.equal(tensor, whole.state()[name]) for name, tensor in parts.state().items())
