"""Decoding takes one thread unless several are clearly faster."""

import time
from collections.abc import Iterator

import pytest
import torch

from runtime.serve.threads import choose_threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("alone_sec", "together_sec", "chosen"), [(0.001, 0.001, 1), (0.001, 0.004, 1), (0.006, 0.001, 2)])
def test_the_faster_number_is_chosen_and_one_where_they_are_equal(alone_sec: float, together_sec: float, chosen: int) -> None:
    choose_threads(lambda: time.sleep(alone_sec if torch.get_num_threads() == 1 else together_sec))
    assert torch.get_num_threads() == chosen
