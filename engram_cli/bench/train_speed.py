"""How long a training step takes with tables of any size, without memory, and with the rows in torch's own embeddings.

Every way trains on the run's corpus, from step 0 on, with the run's model and batches; only where the rows lie differs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import Tensor, nn

from engram_cli.bench.timing import time_in_turn
from runtime.config import RunConfig
from runtime.device import autocast
from runtime.lookup import Addressing
from runtime.model.memory import EngramMemory
from runtime.run import Run
from runtime.settings import Settings
from runtime.tokens import Tokens
from runtime.train.disk_rows import DiskRows
from runtime.train.trainer import MAX_GRADIENT_NORM, Trainer

ROW_BETAS = (0.9, 0.95)
STEPS_OF_A_TURN = 8


def with_rows(config: RunConfig, run: Run, rows: int) -> RunConfig:
    """The configuration with about so many rows in each layer's table."""
    vocab = run.vocab()
    settings = Settings.of(config, vocab)
    assert settings.memory is not None
    columns = len(settings.memory.orders) * settings.memory.heads
    memory = replace(settings.memory, rows_per_head=max(2, rows // columns))
    return replace(settings, memory=memory).resolve(vocab, config.precision)


def without_memory(config: RunConfig) -> RunConfig:
    return replace(config, spec=None, model=replace(config.model, memory=None))


def table_bytes(config: RunConfig) -> int:
    """Of the rows themselves, which a new table writes; what a rule keeps of a row is zeros until the row is read."""
    assert config.spec is not None
    return config.spec.total_rows * config.head_dim * 4


def trainer(run: Run, config: RunConfig, folder: Path | None = None) -> Trainer:
    """One that takes steps and leaves no files but rows on disk, in the folder."""
    return Trainer(run, config, Tokens.open(run.train_folder / "tokens"), train_folder=folder)


def disk_seconds(run: Run, config: RunConfig, in_memory: Trainer, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step with the rows in memory and on disk, by turns of several steps, each with all that it writes."""
    with TemporaryDirectory(dir=run.train_folder, prefix="bench-") as folder:
        on_disk = trainer(run, replace(config, recipe=replace(config.recipe, row_place="disk")), Path(folder))
        rows = on_disk.state.rows
        assert isinstance(rows, DiskRows)
        rows.begin(0)

        def turn(of: Trainer) -> None:
            for _ in range(STEPS_OF_A_TURN):
                of.train_step()
            rows.written()

        ways = {"memory": lambda: turn(in_memory), "disk": lambda: turn(on_disk)}
        found = time_in_turn(ways, rounds)
    return {name: [seconds / STEPS_OF_A_TURN for seconds in each] for name, each in found.items()}


class Peer:
    """The same model with each layer's rows in an `nn.Embedding`, on SparseAdam (`sparse`) or on Adam over the whole table."""

    def __init__(self, run: Run, config: RunConfig, sparse: bool) -> None:
        assert config.spec is not None
        self.trainer = trainer(run, with_rows(config, run, 2))  # for its model, of which rows are no part
        self.model, self.optimizer = self.trainer.state.model, self.trainer.state.optimizer
        self.addressing = Addressing(run.vocab(), config.spec)
        self.tables = {
            layer: nn.Embedding(config.spec.rows(layer), config.head_dim, sparse=sparse).to(self.trainer.device)
            for layer in config.spec.layers
        }
        weights = [table.weight for table in self.tables.values()]
        self.rows = (
            torch.optim.SparseAdam(weights, betas=ROW_BETAS)
            if sparse
            else torch.optim.Adam(weights, betas=ROW_BETAS, fused=True)
        )
        self.step = 0

    def train_step(self) -> float:
        inputs, targets = self.trainer.batches.at(self.step)
        rows = self.addressing.addresses(inputs).rows
        device = self.trainer.device
        with autocast(device, self.trainer.config.precision):
            loss = self.model.loss(
                torch.from_numpy(inputs.copy()).to(device),
                torch.from_numpy(targets.copy()).to(device),
                lambda layer: self.tables[layer](torch.from_numpy(rows[layer]).to(device)).flatten(2),
            )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        for optimizer in (self.optimizer, self.rows):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()


PARTS = ("addresses", "unique_and_gather", "vectors_and_backward", "row_update", "projection", "gate_and_convolution")
ROW_PARTS = PARTS[:4]


def part_seconds(trainer: Trainer, rounds: int) -> dict[str, list[float]]:
    """Seconds of each part of a step's memory on its own, over all layers: one number for each round and part."""
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    for number in range(rounds + 1):
        timed = dict.fromkeys(PARTS, 0.0)
        _time_rows(trainer, number, timed)
        for part in PARTS if number else ():
            seconds[part].append(timed[part])
    return seconds


def _time_rows(trainer: Trainer, step: int, timed: dict[str, float]) -> None:
    assert trainer.addressing is not None
    inputs, _ = trainer.batches.at(step)
    with _adding(timed, "addresses"):
        rows = trainer.addressing.addresses(inputs).rows
    for layer, numbers in rows.items():
        table = trainer.state.tables[layer]
        with _adding(timed, "unique_and_gather"):
            leaf = table.read(numbers)
        with _adding(timed, "vectors_and_backward"):
            vectors = leaf.batch_vectors()
        direction = torch.ones_like(vectors)
        with _adding(timed, "vectors_and_backward"):
            vectors.backward(direction)  # type: ignore[no-untyped-call]
        with _adding(timed, "row_update"):
            table.step(leaf, 1e-4, step + 1)
        memory = trainer.state.model.blocks[layer].memory
        assert memory is not None
        _time_module(trainer, memory, vectors.detach().requires_grad_(), timed)


def _time_module(trainer: Trainer, memory: EngramMemory, vectors: Tensor, timed: dict[str, float]) -> None:
    """Adds the projection's time, and what the module takes more than that."""
    shape = (*vectors.shape[:2], memory.streams, memory.hidden)
    hidden, whole = torch.randn(shape, device=vectors.device, requires_grad=True), {"projection": 0.0, "module": 0.0}
    for part, module, given in (("projection", memory.projection, (vectors,)), ("module", memory, (hidden, vectors))):
        with _adding(whole, part), autocast(trainer.device, trainer.config.precision):
            out = module(*given)
        direction = torch.ones_like(out)
        with _adding(whole, part):
            out.backward(direction)
    timed["projection"] += whole["projection"]
    timed["gate_and_convolution"] += whole["module"] - whole["projection"]


@contextmanager
def _adding(timed: dict[str, float], part: str) -> Iterator[None]:
    began = perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    timed[part] += perf_counter() - began
