"""A training is so many steps or minutes long: learning rate, validations and end follow from the share that is over."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashing.base.errors import UsageError
from runtime.config import Recipe
from runtime.train.schedule import Schedule

SHAPE = {"batch": 4, "length": 64, "learning_rate": 1e-3}


def of_steps(steps: int, **rest: float) -> Schedule:
    return Schedule(Recipe(steps=steps, **SHAPE, **rest))  # type: ignore[arg-type]


def of_minutes(minutes: float, **rest: float) -> Schedule:
    return Schedule(Recipe(steps=None, minutes=minutes, **SHAPE, **rest))  # type: ignore[arg-type]


@given(st.integers(1, 5000), st.integers(1, 12))
def test_there_are_as_many_validations_as_asked_for_and_the_last_is_at_the_end(steps: int, evaluations: int) -> None:
    schedule = of_steps(steps, evaluations=evaluations)
    due = [schedule.validations_due(step, 0.0) for step in range(steps + 1)]
    assert due[0] == 0
    assert due[-1] == evaluations
    assert due[-1] > due[-2]
    assert all(a <= b for a, b in itertools.pairwise(due))


@given(st.integers(100, 5000))
def test_the_rate_rises_to_its_peak_and_falls_to_nothing_along_two_lines(steps: int) -> None:
    schedule = of_steps(steps, warmup_share=0.1)
    rates = [schedule.rate(step, 0.0) for step in range(steps)]
    middles = (np.arange(steps) + 0.5) / steps
    assert np.allclose(rates, np.interp(middles, [0, 0.1, 1], [0, 1, 0]), atol=10 / steps)
    assert schedule.is_over(steps, 0.0)
    assert not schedule.is_over(steps - 1, 0.0)


@given(st.integers(100, 5000), st.floats(0, 0.5), st.floats(0, 0.5))
def test_with_a_decay_share_the_rate_rises_stays_and_falls(steps: int, warmup: float, decay: float) -> None:
    schedule = of_steps(steps, warmup_share=warmup, decay_share=decay)
    rates = [schedule.rate(step, 0.0) for step in range(steps)]
    assert max(rates) <= 1
    for step, rate in enumerate(rates):
        if step >= warmup * steps and step <= (1 - decay) * steps:
            assert rate == 1
        if step + 1 < warmup * steps:
            assert rate == pytest.approx((step + 1) / steps / warmup)
        if step > (1 - decay) * steps:
            assert rate == pytest.approx((steps - step) / steps / decay)


@given(st.integers(1, 3000), st.floats(0, 0.99))
def test_a_decay_share_of_all_that_follows_the_warm_up_is_the_rate_without_one(steps: int, warmup: float) -> None:
    without, given_whole = of_steps(steps, warmup_share=warmup), of_steps(steps, warmup_share=warmup, decay_share=1 - warmup)
    rates = [[schedule.rate(step, 0.0) for step in range(steps)] for schedule in (without, given_whole)]
    assert rates[1] == [min(1.0, rate) for rate in rates[0]]


def test_shares_that_are_more_than_the_whole_are_refused() -> None:
    of_steps(10, warmup_share=0.9, decay_share=0.1)
    with pytest.raises(UsageError, match=r"recipe\.warmup_share 0\.5 and recipe\.decay_share 0\.6 are more than the whole"):
        of_steps(10, warmup_share=0.5, decay_share=0.6)


def test_minutes_give_the_same_rates_as_the_steps_that_fit_into_them() -> None:
    timed, counted = of_minutes(2.0), of_steps(1200)
    for step in range(1, 1200, 7):  # a step of a tenth of a second
        assert timed.rate(step, step / 10) == pytest.approx(counted.rate(step, 0.0))
        assert timed.validations_due(step, step / 10) == counted.validations_due(step, 0.0)
    assert timed.is_over(3, 120.0)
    assert not timed.is_over(10**6, 119.9)


def test_a_slow_last_step_does_not_make_the_rate_negative() -> None:
    assert of_minutes(1.0).rate(10, 61.0) == 0
