"""Sharded rows: every process holds a range of each layer's rows, and the batch's rows travel.

    ask      each process makes the row numbers of its sequences distinct; numbers go to their rows' owners, a step ahead
    settle   owners read what they were asked for, each row once, and send the vectors back
    write    gradients go the same way as the numbers; an owner adds those of a row up in the order of ranks, and takes the step

What a process sends in a step is its distinct rows that are not its own: 8 bytes for the number, and a vector and a gradient of
float32. Sums are those that one process makes which computes the others' parts of the batch one after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.train.leaf import Leaf, summed
from runtime.train.peers import Peers
from runtime.train.row_table import RowTable, distinct
from runtime.train.rows import BatchRows
from runtime.vectors import LayerRows, Vectors

ID_BYTES = 8  # of a row's number


@dataclass(frozen=True, slots=True)
class Traffic:
    """How many rows of every layer travel between this process and each of all."""

    asked: Tensor  # (layers, count) int64 rows that this process reads, by their owners
    owned: Tensor  # (layers, count) int64 rows of this process's, by who reads them

    @classmethod
    def between(cls, peers: Peers, asked: Tensor, ahead: bool) -> "Traffic":
        ones = [1] * peers.count
        return cls(asked, peers.exchanged(asked.T.contiguous(), ones, ones, ahead).T)

    def to_owners(self, peers: Peers, parts: list[Tensor], ahead: bool = False) -> list[Tensor]:
        """Sends what belongs to each layer's rows to their owners; gives what comes, by layer, in the order of ranks."""
        return _exchanged(peers, parts, self.asked, self.owned, ahead)

    def to_readers(self, peers: Peers, parts: list[Tensor], ahead: bool = False) -> list[Tensor]:
        """Sends what belongs to the rows that were asked for back to who asked."""
        return _exchanged(peers, parts, self.owned, self.asked, ahead)


def _exchanged(peers: Peers, parts: list[Tensor], sent: Tensor, received: Tensor, ahead: bool) -> list[Tensor]:
    """One exchange for all layers: to each process go its pieces of every layer's part, one after another."""
    pieces = [torch.split(part, counts) for part, counts in zip(parts, sent.tolist(), strict=True)]
    whole = torch.cat([own[rank] for rank in range(peers.count) for own in pieces])
    found = peers.exchanged(whole, sent.sum(0).tolist(), received.sum(0).tolist(), ahead)
    came = torch.split(found, received.T.flatten().tolist())  # by sender, and within that by layer
    layers = len(parts)
    return [torch.cat(came[layer::layers]) for layer in range(layers)]


class ShardedRows:
    """The rows of every layer's table, of which this process has those in `tables`; all processes ask at the same times."""

    is_finite = True

    def __init__(self, tables: Mapping[int, RowTable], totals: Mapping[int, int], peers: Peers) -> None:
        """`totals` has the rows of each whole table."""
        self.tables, self.peers = tables, peers
        starts = {layer: [peers.share(total, rank).start for rank in range(peers.count)] for layer, total in totals.items()}
        self.bounds = {layer: torch.tensor([*starts[layer], total]) for layer, total in totals.items()}

    def ask(self, rows: LayerRows, before: BatchRows | None) -> "ShardedBatchRows":  # noqa: ARG002
        return ShardedBatchRows(self, rows, ahead=True)

    @property
    def table_bytes(self) -> int:
        return sum(table.weight.nbytes for table in self.tables.values())

    def fetch(self, rows: LayerRows) -> Vectors:
        """The vectors of rows (B, T, columns), as they are now and without gradients."""
        found = ShardedBatchRows(self, rows, ahead=False)
        found.settle()
        return lambda layer: found.leaves[layer].batch_vectors().detach()


class ShardedBatchRows:
    def __init__(self, rows: ShardedRows, asked: LayerRows, ahead: bool) -> None:
        self._peers, self._tables = rows.peers, [rows.tables[layer] for layer in asked]
        self.leaves: dict[int, Leaf] = {}
        counts = []
        for (layer, numbers), table in zip(asked.items(), self._tables, strict=True):
            unique, inverse = distinct(torch.from_numpy(numbers).to(table.weight.device))
            vectors = table.weight.new_empty(len(unique), table.weight.shape[1])
            self.leaves[layer] = Leaf(unique, vectors.requires_grad_(), inverse)
            counts.append(torch.searchsorted(unique.cpu(), rows.bounds[layer]).diff())
        self._traffic = Traffic.between(self._peers, torch.stack(counts), ahead)
        own = self._traffic.to_owners(self._peers, [leaf.rows for leaf in self.leaves.values()], ahead)
        self._own = [distinct(numbers) for numbers in own]
        self._read: list[Tensor] = []  # the vectors of own rows, once they are settled

    @torch.no_grad()
    def settle(self) -> None:
        self._read = [table.gathered(rows) for table, (rows, _) in zip(self._tables, self._own, strict=True)]
        parts = [vectors.index_select(0, inverse) for vectors, (_, inverse) in zip(self._read, self._own, strict=True)]
        for leaf, vectors in zip(self.leaves.values(), self._traffic.to_readers(self._peers, parts), strict=True):
            leaf.vectors.copy_(vectors)

    @torch.no_grad()
    def write(self, learning_rate: float, step: int) -> None:
        """One layer after the other, since rules may ask the other processes."""
        came = self._traffic.to_owners(self._peers, [leaf.gradient for leaf in self.leaves.values()])
        for table, (rows, inverse), vectors, values in zip(self._tables, self._own, self._read, came, strict=True):
            table.move(rows, vectors, summed(values, inverse, len(rows)), learning_rate, step)

    @property
    def moved(self) -> dict[int, Tensor]:
        return {layer: rows for layer, (rows, _) in zip(self.leaves, self._own, strict=True)}

    @property
    def sent_bytes(self) -> int:
        """What `ask`, `settle` and `write` send from this process to others, without the counts."""
        away = [counts.sum() - counts[:, self._peers.rank].sum() for counts in (self._traffic.asked, self._traffic.owned)]
        row_bytes = 4 * self._tables[0].weight.shape[1]
        return int(away[0]) * (ID_BYTES + row_bytes) + int(away[1]) * row_bytes
