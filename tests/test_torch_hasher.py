"""The torch hasher against the reference."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hashing import reference
from hashing.spec import HashSpec
from runtime.torch_hasher import TorchHasher
from tests.addressing import addressed


@settings(max_examples=60, deadline=None)
@given(addressed(), st.data())
def test_equals_the_reference_whole_and_in_pieces(case: tuple[HashSpec, list[int], set[int]], data: st.DataObject) -> None:
    spec, ids, starts = case
    layer = spec.layers[-1]
    expected = reference.rows(spec, layer, ids, starts)
    hasher = TorchHasher(spec, layer)
    whole = torch.tensor([ids], dtype=torch.int64)
    marked = torch.zeros(1, len(ids), dtype=torch.bool)
    marked[0, list(starts)] = True
    assert hasher.rows(whole, starts=marked)[0].tolist() == expected
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=5)))
    history, pieces = hasher.history(1), []
    for first, last in pairwise([0, *cuts, len(ids)]):
        pieces += hasher.rows(whole[:, first:last], history, marked[:, first:last])[0].tolist()
        history = hasher.advance(whole[:, first:last], history, marked[:, first:last])
    assert pieces == expected
