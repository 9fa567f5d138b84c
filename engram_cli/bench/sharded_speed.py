"""How training steps in several processes compare: rows that travel, and rows whose gradients are dense.

Every way takes the run's batches, each process its share of them, with the run's model from step 0 on.
"""

import resource
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engram_cli.bench.train_speed import ROW_BETAS, with_rows
from runtime.config import RunConfig
from runtime.lookup import Addressing
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.tokens import Tokens
from runtime.train.peers import Peers
from runtime.train.sharded_rows import ID_BYTES, ShardedBatchRows
from runtime.train.trainer import MAX_GRADIENT_NORM, Trainer

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


def sharded(peers: Peers, folder: Path, config: RunConfig, rows: int, rounds: int) -> dict[str, Any]:
    """Steps of `engram train`, with about so many rows a layer that the processes share."""
    run = Run(folder)
    trainer = Trainer(run, with_rows(config, run, rows), Tokens.open(run.train_folder / "tokens"), peers)
    seconds, sent, least = [], [], []
    for _ in range(rounds + 1):
        began = perf_counter()
        trainer.train_step()
        seconds.append(perf_counter() - began)
        batch = trainer.feed.taken.rows
        if isinstance(batch, ShardedBatchRows):
            sent.append(batch.sent_bytes)
            least.append(_least_bytes(peers, trainer, batch))
    return {"step_sec": seconds[1:], "sent_bytes": sent[1:], "least_bytes": least[1:], "peak_bytes": _peak_bytes()}


def _least_bytes(peers: Peers, trainer: Trainer, batch: ShardedBatchRows) -> int:
    """Of this process's distinct rows that another has: the number, the vector that comes and the gradient that goes."""
    spec = trainer.config.spec
    assert spec is not None
    away = 0
    for layer, leaf in batch.leaves.items():
        own = peers.share(spec.rows(layer))
        away += int(((leaf.rows < own.start) | (leaf.rows >= own.stop)).sum())
    return away * (ID_BYTES + 2 * 4 * trainer.config.head_dim)


class _Dense(nn.Module):
    """The run's model with whole tables in every process, as modules that DistributedDataParallel sums the gradients of."""

    def __init__(self, config: RunConfig, model: LanguageModel) -> None:
        super().__init__()
        assert config.spec is not None
        self.model = model
        self.tables = nn.ModuleDict(
            {str(layer): nn.Embedding(config.spec.rows(layer), config.head_dim) for layer in config.spec.layers}
        )

    def forward(self, inputs: Tensor, targets: Tensor, rows: dict[int, Tensor]) -> Tensor:
        return self.model.loss(inputs, targets, lambda layer: self.tables[str(layer)](rows[layer]).flatten(2))


def dense(peers: Peers, folder: Path, config: RunConfig, rows: int, rounds: int) -> dict[str, Any]:
    """The same model and batches, with whole tables in every process and dense gradients, summed by DistributedDataParallel."""
    run = Run(folder)
    sized = with_rows(config, run, rows)
    trainer = Trainer(run, with_rows(config, run, 2), Tokens.open(run.train_folder / "tokens"))
    trainer.batches = type(trainer.batches)(
        trainer.batches.ids, sized.recipe.batch, sized.recipe.length, sized.recipe.seed, peers.share(sized.recipe.batch)
    )
    assert sized.spec is not None
    addressing, whole = Addressing(run.vocab(), sized.spec), _Dense(sized, trainer.state.model)
    module = DistributedDataParallel(whole) if peers.are_many else whole
    optimizer = torch.optim.Adam(whole.tables.parameters(), betas=ROW_BETAS, fused=True)
    seconds = []
    for step in range(rounds + 1):
        began = perf_counter()
        inputs, targets = trainer.batches.at(step)
        found = addressing.addresses(inputs).rows
        tensors = [torch.from_numpy(array.copy()) for array in (inputs, targets)]
        module(*tensors, {layer: torch.from_numpy(numbers) for layer, numbers in found.items()}).backward()
        nn.utils.clip_grad_norm_(trainer.state.model.parameters(), MAX_GRADIENT_NORM)
        for each in (trainer.state.optimizer, optimizer):
            each.step()
            each.zero_grad(set_to_none=True)
        seconds.append(perf_counter() - began)
    gradient_bytes = sum(table.weight.nbytes for table in whole.tables.values() if isinstance(table, nn.Embedding))
    sent = 2 * (peers.count - 1) * gradient_bytes // peers.count
    return {"step_sec": seconds[1:], "sent_bytes": [sent] * rounds, "peak_bytes": _peak_bytes()}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT
