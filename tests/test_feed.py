"""Batches that are made ready a step ahead give what batches read at their own step give."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.lookup import Addressing
from runtime.train.batches import Batches
from runtime.train.feed import Feed
from runtime.train.leaf import Leaf
from runtime.train.leaf_kernel import unique_rows
from runtime.train.presets import preset_settings
from runtime.train.row_table import RowTable
from runtime.train.rows import OwnBatchRows, OwnRows
from tests.vocabularies import raw_vocab

CPU = torch.device("cpu")


def backward(leaf: Leaf, step: int) -> None:
    """Gradients that depend on what was read, so that a stale row shows."""
    vectors = leaf.batch_vectors()
    (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(step)) + vectors**2).sum().backward()


def test_a_row_about_to_be_written_is_read_as_written() -> None:
    settings = preset_settings("nano").memory
    assert settings is not None
    vocab = raw_vocab(40)  # few tokens, so that every batch shares rows with the one before it
    spec = replace(settings, layers=(0, 3), rows_per_head=60, heads=2, pad_token=0).spec(vocab)
    addressing = Addressing(vocab, spec)
    ids = np.random.default_rng(0).integers(0, 40, 1000).astype(np.int32)
    batches = Batches(ids, batch=3, length=11, seed=1)
    tables, plain = ({layer: RowTable.create(spec.rows(layer), 4, 0.02, layer, CPU) for layer in (0, 3)} for _ in range(2))
    feed = Feed(batches, addressing, OwnRows(tables), CPU)
    shared = 0
    for step in (0, 1, 2, 3, 7, 8, 9):  # a step that is not the next one is read when it is taken
        batch = feed.take(step)
        inputs, targets = batches.at(step)
        assert np.array_equal(batch.inputs, inputs)
        assert np.array_equal(batch.targets, targets)
        for layer, rows in addressing.addresses(inputs).rows.items():
            leaf = plain[layer].read(rows)
            assert torch.equal(leaf.rows, batch.leaves[layer].rows)
            assert torch.equal(leaf.vectors, batch.leaves[layer].vectors)
            backward(leaf, step)
            backward(batch.leaves[layer], step)
            plain[layer].step(leaf, 0.1, step + 1)
            assert isinstance(batch.rows, OwnBatchRows)
            shared += len(batch.rows.shared.get(layer, ()))
        feed.write(batch, 0.1)
        assert all(torch.equal(tables[layer].weight, plain[layer].weight) for layer in tables)
    assert shared > 100


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(0, 2**34), min_size=1, max_size=200), small=st.booleans())
def test_unique_rows_are_those_of_numpy(rows: list[int], small: bool) -> None:
    given_rows = np.array(rows, np.int64) % (7 if small else 2**34)
    unique, inverse = unique_rows(given_rows, int(given_rows.max()).bit_length())
    expected = np.unique(given_rows)
    assert np.array_equal(unique, expected)
    assert np.array_equal(unique[inverse], given_rows)


def test_gradients_of_a_batch_reach_its_unique_rows_as_those_of_an_embedding() -> None:
    generator = torch.Generator().manual_seed(0)
    inverse = torch.randint(0, 50, (3, 7, 4), generator=generator)
    vectors, direction = torch.randn(60, 5, generator=generator), torch.randn(3, 7, 20, generator=generator)
    found, expected = vectors.clone().requires_grad_(), vectors.double().requires_grad_()
    gathered = Leaf(torch.arange(60), found, inverse).batch_vectors()
    assert torch.equal(gathered, vectors[inverse].flatten(2))
    gathered.backward(direction)
    torch.nn.functional.embedding(inverse, expected).flatten(2).backward(direction.double())
    assert found.grad is not None
    assert expected.grad is not None
    torch.testing.assert_close(found.grad, expected.grad.float())
