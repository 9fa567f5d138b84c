"""Training: one pass over the recipe's steps, interruptible at any moment.

A step addresses its batch, reads the unique rows of each layer as leaves, and updates those by Adam and everything else by
AdamW. On a CPU with bfloat16 matrix units, and on a GPU, products are computed in bfloat16 (autocast); the run remembers
which.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashing.base.atomic import remove, write_text
from hashing.base.errors import EngramError
from hashing.hasher import Hasher
from hashing.spec import HashSpec
from hashing.text.corpus import Corpus
from hashing.vocab import CanonicalVocab
from runtime.device import autocast, default_device, fast_precision
from runtime.model.language_model import LanguageModel, ModelConfig, Vectors
from runtime.run import Run
from runtime.tokens import Batches, Tokens, encode_corpus
from runtime.train.checkpoint import State, latest_checkpoint, load_checkpoint, publish, save_checkpoint
from runtime.train.presets import Precision, Preset, Recipe
from runtime.train.row_table import RowTable
from runtime.validation import Validation, validate

MAX_GRADIENT_NORM = 1.0
BETAS = (0.9, 0.95)


@dataclass(frozen=True, slots=True)
class Report:
    """A finished step."""

    step: int
    loss: float  # nats per token
    tokens_per_sec: float
    validation: Validation | None = None


class Trainer:
    """A run in training; `Trainer.start` begins one and `Trainer.resume` goes on with one."""

    def __init__(self, run: Run, config: dict[str, Any], spec: HashSpec, vocab: CanonicalVocab, tokens: Tokens) -> None:
        self.run, self.spec, self.vocab, self.tokens = run, spec, vocab, tokens
        self.recipe = Recipe.from_json(config["recipe"])
        self.precision: Precision = config["precision"]
        self.device = default_device()
        self.hasher = Hasher(spec)
        self.batches = Batches(tokens.ids("train"), self.recipe.batch, self.recipe.length, self.recipe.seed)
        torch.manual_seed(self.recipe.seed)
        model = LanguageModel(ModelConfig.from_json(config["model"])).to(self.device)
        tables = {
            layer: RowTable.create(
                spec.rows(layer), config["head_dim"], self.recipe.row_std, self.recipe.seed + layer, self.device
            )
            for layer in spec.layers
        }
        self.state = State(model, _adamw(model, self.recipe), tables)

    @classmethod
    def start(
        cls, run: Run, preset: Preset, name: str, corpus: Corpus, advance: Callable[[int], None] = lambda _: None
    ) -> "Trainer":
        """Encodes the corpus (`advance` hears of each document) and sets out; what an earlier training left is removed."""
        tokenizer, vocab = run.tokenizer(), run.vocab()
        for path in (run.config_path, run.model_path, run.tables_path, run.train_folder):
            remove(path)
        tokens = encode_corpus(run.train_folder / "tokens", corpus, tokenizer, advance)
        spec = preset.memory.spec(vocab)
        model = ModelConfig(
            vocab_size=len(vocab.tokens),
            hidden=preset.hidden,
            blocks=preset.blocks,
            heads=preset.heads,
            ffn=preset.ffn,
            memory_layers=spec.layers,
            memory_width=spec.columns * preset.memory.head_dim,
            max_order=spec.max_order,
            gate=preset.gate,
            conv=preset.conv,
            tied=preset.tied,
        )
        config = {
            "preset": name,
            "model": model.to_json(),
            "recipe": preset.recipe.to_json(),
            "precision": fast_precision(default_device()),
            "head_dim": preset.memory.head_dim,
            "spec": spec.to_json(),
        }
        write_text(run.config_path, json.dumps(config, indent=1, sort_keys=True))
        return cls(run, config, spec, vocab, tokens)

    @classmethod
    def resume(cls, run: Run) -> "Trainer":
        """From the newest checkpoint, or from the start where a kill came before the first one."""
        config, vocab = run.config(), run.vocab()
        spec = run.spec()
        if spec.vocab_fingerprint != vocab.fingerprint:
            raise EngramError(
                f"the training in {run.folder} uses vocabulary {spec.vocab_fingerprint}, vocab.parquet is {vocab.fingerprint}",
                hint="put the vocabulary back, or start again with engram train --force",
            )
        trainer = cls(run, config, spec, vocab, Tokens.open(run.train_folder / "tokens"))
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
                save_checkpoint(self.run, self.state, self.spec, self.vocab)
            yield report
        if latest_checkpoint(self.run) != self.run.train_folder / f"step-{self.state.step:07}":
            save_checkpoint(self.run, self.state, self.spec, self.vocab)

    def train_step(self) -> float:
        """One batch; its loss in nats per token."""
        inputs, targets = self.batches.at(self.state.step)
        leaves = {layer: self.state.tables[layer].read(rows) for layer, rows in self._rows(inputs).items()}
        rate = self.recipe.learning_rate * self._schedule(self.state.step)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        with autocast(self.device, self.precision):
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
        vectors_of = self._vectors if memory else None
        return validate(self.state.model, self.tokens, self.recipe.length, self.precision, vectors_of)

    def _rows(self, inputs: NDArray[np.int64]) -> dict[int, NDArray[np.signedinteger]]:
        canonical = self.vocab.canonical(inputs)
        return {layer: self.hasher.rows(layer, canonical) for layer in self.spec.layers}

    def _vectors(self, inputs: NDArray[np.int64]) -> Vectors:
        rows = self._rows(inputs)
        return lambda layer: self.state.tables[layer].weight[self._tensor(rows[layer])].flatten(2)

    def _tensor(self, array: NDArray[np.signedinteger]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _schedule(self, step: int) -> float:
        """Linear warm-up, then linear decay to nothing."""
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


def with_overrides(preset: Preset, steps: int | None, seed: int | None) -> Preset:
    changes = {key: value for key, value in (("steps", steps), ("seed", seed)) if value is not None}
    return replace(preset, recipe=replace(preset.recipe, **changes))


def _adamw(model: LanguageModel, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=BETAS, fused=True)
