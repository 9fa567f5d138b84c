"""Rows that are spread over processes are those of one process: to the bit, whatever each of them reads."""

import numpy as np
import pytest
import torch
from torch import Tensor

from engram_cli.bench.several import in_group
from runtime.config import RowRule
from runtime.train.new_rows import NewRows
from runtime.train.peers import ALONE, Peers
from runtime.train.row_table import RowTable
from runtime.train.rows import BatchRows, OwnRows, Rows
from runtime.train.sharded_rows import ShardedBatchRows, ShardedRows

TOTALS = {0: 97, 3: 1000}  # rows of each layer
WIDTH, PARTS, STEPS = 6, 12, 6
RULES: tuple[RowRule, ...] = ("adam", "rowwise_adam", "sinkhorn")
CPU = torch.device("cpu")


def rows_read(step: int, part: int) -> dict[int, np.ndarray]:
    """(1, 5, 4) The rows of a part of a step's batch: at some steps all have the same one, or those of a few owners alone."""
    random = np.random.default_rng([step, part])
    if step == 1:
        return {layer: np.full((1, 5, 4), 7) for layer in TOTALS}
    if step == 2:
        return {layer: random.integers(0, total // 9, (1, 5, 4)) for layer, total in TOTALS.items()}
    return {layer: random.integers(0, total, (1, 5, 4)) for layer, total in TOTALS.items()}


def tables(peers: Peers, rule: RowRule) -> dict[int, RowTable]:
    shares = {layer: peers.share(total) for layer, total in TOTALS.items()}
    return {
        layer: RowTable.create(len(own), WIDTH, 0.02, layer, CPU, rule, first=own.start, peers=peers)
        for layer, own in shares.items()
    }


def backward(batch: BatchRows, parts: range, shares: list[range], step: int) -> None:
    """One backward pass a share, by gradients that depend on what was read, so that a stale row or another order shows."""
    for share in shares:
        for leaf in batch.leaves.values():
            vectors = leaf.of_sequences(share.start - parts.start, len(share)).batch_vectors()
            generators = [torch.Generator().manual_seed(100 * step + part) for part in share]
            directions = torch.stack([torch.randn(vectors.shape[1:], generator=generator) for generator in generators])
            (vectors * directions + vectors**2).sum().backward()


def trained(peers: Peers, rule: RowRule, count: int) -> tuple[dict[str, Tensor], list[int]]:
    """After some steps what this process has of the tables, and the bytes that it sent in each.

    It computes its share of each batch, or alone the shares of `count` processes one after the other.
    """
    own = tables(peers, rule)
    rows: Rows = ShardedRows(own, TOTALS, peers) if peers.are_many else OwnRows(own)
    shares = [peers.share(PARTS)] if peers.are_many else [Peers(rank, count).share(PARTS) for rank in range(count)]
    sent, before = [], None
    for step in range(STEPS):
        parts = peers.share(PARTS)
        read = [rows_read(step, part) for part in parts]
        asked = {layer: np.concatenate([one[layer] for one in read]) for layer in TOTALS}
        batch = rows.ask(asked, before)
        batch.settle()
        backward(batch, parts, shares, step)
        batch.write(0.01, step + 1)
        fetched = rows.fetch(asked)
        for layer, leaf in batch.leaves.items():
            assert torch.equal(fetched(layer), rows.fetch(asked)(layer))
            assert fetched(layer).shape == (*asked[layer].shape[:2], asked[layer].shape[2] * WIDTH)
            assert not torch.equal(fetched(layer), leaf.batch_vectors()), "the step moved them"
        sent.append(batch.sent_bytes if isinstance(batch, ShardedBatchRows) else 0)
        before = batch
    return {f"{layer}/{name}": array for layer, table in own.items() for name, array in table.state().items()}, sent


def all_trained(peers: Peers, count: int) -> dict[str, tuple[dict[str, Tensor], list[int]]]:
    return {rule: trained(peers, rule, count) for rule in RULES}


@pytest.mark.parametrize("count", [3, 4])
def test_rows_of_several_processes_are_those_of_one(count: int) -> None:
    alone, found = all_trained(ALONE, count), in_group(count, all_trained, count)
    for rule in RULES:
        expected, _ = alone[rule]
        for name, whole in expected.items():
            joined = torch.cat([one[rule][0][name] for one in found])
            assert torch.equal(joined, whole), (rule, name)
    least = least_bytes(count)
    for rank, one in enumerate(found):
        assert one["adam"][1] == least[rank]


def least_bytes(count: int) -> list[list[int]]:
    """Of each process and step: 8 bytes a distinct row of another's that it reads, a vector back for each, and a gradient."""
    groups = [Peers(rank, count) for rank in range(count)]
    sent = [[0] * STEPS for _ in groups]
    for step in range(STEPS):
        for reader in groups:
            for layer, total in TOTALS.items():
                read = np.unique(np.stack([rows_read(step, part)[layer] for part in reader.share(PARTS)]))
                for owner in groups:
                    if owner is reader:
                        continue
                    rows = sum(row in owner.share(total) for row in read.tolist())
                    sent[reader.rank][step] += rows * (8 + 4 * WIDTH)
                    sent[owner.rank][step] += rows * 4 * WIDTH
    return sent


def test_shares_follow_each_other_and_owners_are_known_in_closed_form() -> None:
    for count, total in ((1, 5), (3, 10), (7, 100), (8, 8)):
        shares = [Peers(rank, count).share(total) for rank in range(count)]
        assert [row for share in shares for row in share] == list(range(total))
        assert all(row in shares[((row + 1) * count - 1) // total] for row in range(total))


def test_new_rows_follow_from_their_numbers_and_are_normal() -> None:
    new, whole = NewRows(5, 0.02), np.empty((100_000, 8), np.float32)
    new.fill_range(0, whole)
    part, one = np.empty((50, 8), np.float32), np.empty((2, 8), np.float32)
    new.fill_range(99_000, part)
    new.fill(np.array([70_001, 3]), one)
    assert np.array_equal(part, whole[99_000:99_050])
    assert np.array_equal(one, whole[[70_001, 3]])
    assert whole.mean() == pytest.approx(0, abs=1e-4)
    assert whole.std() == pytest.approx(0.02, rel=1e-2)
    within = [float((abs(whole) < width * 0.02).mean()) for width in (1, 2, 3)]
    assert within == pytest.approx([0.683, 0.954, 0.997], abs=0.02)
    assert abs(np.corrcoef(whole.T) - np.eye(8)).max() < 0.02
    other = np.empty_like(part)
    NewRows(6, 0.02).fill_range(99_000, other)
    assert not np.isclose(part, other).any(axis=1).all()
