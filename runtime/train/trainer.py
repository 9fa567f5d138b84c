"""Training: one pass over the recipe's steps, interruptible at any moment.

A step addresses its batch, reads the unique rows of each layer as leaves, and updates those by Adam and everything else by
AdamW. Products are computed in bfloat16 (autocast) where that is faster; the run remembers which.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashing.base.atomic import remove, write_text
from hashing.text.corpus import Corpus
from hashing.vocab import CanonicalVocab
from runtime.config import RunConfig
from runtime.device import autocast, default_device
from runtime.lookup import Addressing, Lookup
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.tokens import Tokens, encode_corpus
from runtime.train.batches import Batches
from runtime.train.checkpoint import State, latest_checkpoint, load_checkpoint, publish, save_checkpoint
from runtime.train.optimisers import adamw
from runtime.train.row_table import RowTable, RowTables
from runtime.validation import Validation, validate

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """A finished step."""

    step: int
    loss: float  # nats per token
    tokens_per_sec: float
    validation: Validation | None = None


class Trainer:
    """A run in training; `Trainer.start` begins one and `Trainer.resume` goes on with one."""

    def __init__(self, run: Run, config: RunConfig, vocab: CanonicalVocab, tokens: Tokens) -> None:
        self.run, self.config, self.vocab, self.tokens = run, config, vocab, tokens
        self.recipe, self.device = config.recipe, default_device()
        self.addressing = Addressing(vocab, config.spec)
        self.batches = Batches(tokens.ids("train"), self.recipe.batch, self.recipe.length, self.recipe.seed)
        torch.manual_seed(self.recipe.seed)
        model = LanguageModel(config.model).to(self.device)
        self.state = State(model, adamw(model, self.recipe), {layer: self._table(layer) for layer in config.spec.layers})

    def _table(self, layer: int) -> RowTable:
        rows, seed = self.config.spec.rows(layer), self.recipe.seed + layer
        return RowTable.create(rows, self.config.head_dim, self.recipe.row_std, seed, self.device)

    @classmethod
    def start(cls, run: Run, config: RunConfig, corpus: Corpus, advance: Callable[[int], None] = lambda _: None) -> "Trainer":
        """Encodes the corpus (`advance` hears of each document) and sets out; what an earlier training left is replaced.

        The earlier training stays as it was until everything that the new one needs is there.
        """
        fresh = run.folder / "train.new"
        remove(fresh)
        try:
            vocab = run.vocab()
            tokens = encode_corpus(fresh / "tokens", corpus, run.tokenizer(), vocab.end_of_text_id, advance)
            trainer = cls(run, config, vocab, tokens)
        except BaseException:
            remove(fresh)
            raise
        for path in (run.config_path, run.model_path, run.tables_path, run.train_folder):
            remove(path)
        fresh.rename(run.train_folder)
        config.save(run.config_path)
        trainer.tokens = Tokens.open(run.train_folder / "tokens")
        return trainer

    @classmethod
    def resume(cls, run: Run) -> "Trainer":
        """From the newest checkpoint, or from the start where a kill came before the first one."""
        config, vocab = run.config(), run.vocab()
        run.check_vocab(config.spec, vocab)
        trainer = cls(run, config, vocab, Tokens.open(run.train_folder / "tokens"))
        if folder := latest_checkpoint(run):
            load_checkpoint(folder, trainer.state)
            publish(run, folder)
        trainer._forget_after(trainer.state.step)
        return trainer

    @property
    def metrics_path(self) -> Path:
        return self.run.train_folder / "metrics.jsonl"

    def steps(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Report]:
        """Trains, yielding every step; when `stop` says so, saves and ends. Metrics are on disk before a step is yielded."""
        interval = math.ceil(self.recipe.steps / self.recipe.evaluations)
        tokens, begin, at_begin = self.recipe.batch * self.recipe.length, time.perf_counter(), self.state.step
        while self.state.step < self.recipe.steps and not stop():
            loss = self.train_step()
            step = self.state.step
            due = step % interval == 0 or step == self.recipe.steps
            speed = tokens * (step - at_begin) / (time.perf_counter() - begin)
            report = Report(step, loss, speed, self.validate() if due else None)
            self._record(report)
            if due:
                self._save()
            yield report
        if latest_checkpoint(self.run) != self.run.train_folder / f"step-{self.state.step:07}":
            self._save()

    def train_step(self) -> float:
        """One batch; its loss in nats per token."""
        inputs, targets = self.batches.at(self.state.step)
        rows = self.addressing.addresses(inputs).rows
        leaves = {layer: self.state.tables[layer].read(rows[layer]) for layer in rows}
        rate = self.recipe.learning_rate * self._schedule(self.state.step)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        with autocast(self.device, self.config.precision):
            loss = self.state.model.loss(
                self._tensor(inputs), self._tensor(targets), lambda layer: leaves[layer].batch_vectors()
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.state.model.parameters(), MAX_GRADIENT_NORM)
        self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        for layer, leaf in leaves.items():
            self.state.tables[layer].step(leaf, rate * self.recipe.row_rate_factor)
        self.state.step += 1
        return loss.item()

    def validate(self, memory: bool = True) -> Validation:
        """The loss over the validation side, with the memory or with it suppressed."""
        lookup = Lookup(self.addressing, RowTables(self.state.tables)) if memory else None
        return validate(self.state.model, self.tokens, self.recipe.length, self.config.precision, lookup)

    def _save(self) -> None:
        save_checkpoint(self.run, self.state, self.config.spec, self.vocab)

    def _tensor(self, array: NDArray[np.signedinteger]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _schedule(self, step: int) -> float:
        """The share of the learning rate at a step: linear warm-up, then linear decay to nothing."""
        warmup = max(1, round(self.recipe.warmup_share * self.recipe.steps))
        return min((step + 1) / warmup, (self.recipe.steps - step) / max(1, self.recipe.steps - warmup))

    def _record(self, report: Report) -> None:
        line: dict[str, Any] = {"step": report.step, "loss_nats": report.loss, "tokens_per_sec": report.tokens_per_sec}
        if report.validation:
            line |= {"validation_nats": report.validation.nats_per_token, "bits_per_byte": report.validation.bits_per_byte}
        with self.metrics_path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _forget_after(self, step: int) -> None:
        """Drops the metrics of steps that will be taken again, and a line that a kill cut short."""
        lines = self.metrics_path.read_text().splitlines(keepends=True) if self.metrics_path.exists() else []
        write_text(self.metrics_path, "".join(lines[:step]))
