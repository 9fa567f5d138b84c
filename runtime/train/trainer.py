"""Training: one pass over the recipe's steps or minutes, interruptible at any moment.

A step takes its batch, of which the unique rows of each layer are leaves, and updates those by the recipe's rule and everything
else by its optimiser. Products are computed in bfloat16 (autocast) where that is faster; the run remembers which.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from hashing.base.errors import EngramError, UsageError
from hashing.text.corpus import Corpus
from runtime.checkpoints import ROWS
from runtime.config import Recipe, RunConfig
from runtime.device import autocast, default_device, is_out_of_memory
from runtime.lookup import Addressing, Lookup
from runtime.model.language_model import LanguageModel
from runtime.replacement import WriterLock, replacing
from runtime.run import Run
from runtime.sequence import Sequence
from runtime.tokens import Tokens
from runtime.tokens_writer import Progress, encoded_corpus, quiet
from runtime.train.batches import Batches
from runtime.train.checkpoint import DIVERGED_HINT, check_identity, link, load_checkpoint, newest, publish, save_checkpoint
from runtime.train.disk_rows import DiskRows
from runtime.train.feed import Batch, Feed
from runtime.train.loss import trained_loss
from runtime.train.metrics import Metrics, MetricsWriter
from runtime.train.optimisers import backbone_optimizer
from runtime.train.peers import ALONE, Peers
from runtime.train.processes import check_processes, identity
from runtime.train.row_places import placed_rows
from runtime.train.schedule import Schedule
from runtime.train.state import State
from runtime.validation import Validation, validate, validation_budget

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """A finished step."""

    step: int
    loss: float  # nats per token
    tokens_per_sec: float
    elapsed_sec: float  # of training
    passed: float  # the share of the training that is over
    validation: Validation | None = None
    sample: str | None = None  # what the model wrote at a validation

    def metrics(self) -> dict[str, Any]:
        line: dict[str, Any] = {
            "step": self.step,
            "loss_nats": self.loss,
            "tokens_per_sec": self.tokens_per_sec,
            "elapsed_sec": self.elapsed_sec,
        }
        if self.validation:
            line |= {
                "validation_nats": self.validation.nats_per_token,
                "standard_error_nats": self.validation.standard_error,
                "bits_per_byte": self.validation.bits_per_byte,
                "validation_tokens": self.validation.tokens,
            }
        return line if self.sample is None else {**line, "sample": self.sample}


class Trainer:
    """A run in training; `Trainer.start` begins one and `Trainer.resume` goes on with one.

    It is the run's one writer until its steps are done, or until it is closed or forgotten.
    """

    _lock: ExitStack  # that holds the run's WriterLock

    def __init__(
        self, run: Run, config: RunConfig, tokens: Tokens, peers: Peers = ALONE, train_folder: Path | None = None
    ) -> None:
        """`train_folder` is where rows on disk lie, if it is not the run's."""
        self.run, self.config, self.tokens, self.peers = run, config, tokens, peers
        self.recipe, self.device = config.recipe, default_device()
        self.vocab, self.tokenizer = run.vocab(), run.tokenizer()
        self.schedule = Schedule(config.recipe)
        self.addressing = Addressing(self.vocab, config.spec) if config.spec else None
        recipe = self.recipe
        own = peers.share(recipe.batch)
        self.batches = Batches(tokens.ids("train"), recipe.batch, recipe.length, recipe.seed, own)
        torch.manual_seed(recipe.seed)
        model = LanguageModel(config.model).to(self.device)
        rows = placed_rows(config, self.device, peers, train_folder or run.train_folder)
        self.state = State(model, backbone_optimizer(model, recipe), rows)
        self._loss = trained_loss(model, recipe, peers)
        self.feed = Feed(self.batches, self.addressing, self.state.rows, self.device)
        self.last_validation: Validation | None = None
        self._trained_tokens, self._trained_sec = 0, 0.0

    @classmethod
    def start(
        cls,
        run: Run,
        config: RunConfig,
        corpus: Corpus,
        progress: Progress = quiet,
        encoded: Tokens | None = None,
        peers: Peers = ALONE,
    ) -> "Trainer":
        """Encodes the corpus, from where an earlier call was interrupted, and sets out; an earlier training is replaced.

        Where the corpus is encoded already, the run shares those files. The earlier training stays as it was until everything
        of the new one is there, with a checkpoint of its step 0. Of several processes the first alone reads and replaces files;
        the others wait for it.
        """
        vocab = run.vocab()
        check_processes(config, peers)
        peers.check_same(identity(config, vocab))
        with ExitStack() as unless_started:
            with peers.together(), ExitStack() as files:
                fresh = Path()
                with peers.together():
                    if peers.is_first:
                        unless_started.enter_context(WriterLock(run.folder))
                        writing = encoded_corpus(run.folder / "tokens", corpus, run.tokenizer(), vocab.end_of_text_id, progress)
                        own = encoded or files.enter_context(writing)
                        fresh = files.enter_context(replacing(run.folder))
                        own.place(fresh / "train" / "tokens")
                train = peers.told(fresh) / "train"
                trainer = cls(run, config, Tokens.open(train / "tokens"), peers, train)
                trainer.batches.require_full()
                whole = config.recipe.row_place == "memory"
                checkpoint = save_checkpoint(train, trainer.state, config.spec, vocab, None, whole, peers)
                if peers.is_first:
                    link(checkpoint, fresh)
                    corpus.save(fresh / "corpus.json")
                    config.save(fresh / "config.json")
            trainer._lock = unless_started.pop_all()
        trainer.tokens = Tokens.open(run.train_folder / "tokens")
        if isinstance(trainer.state.rows, DiskRows):
            trainer.state.rows.moved_to(run.train_folder / ROWS)
        return trainer

    @classmethod
    def resume(cls, run: Run, peers: Peers = ALONE, **changes: Any) -> "Trainer":
        """From the newest checkpoint, with fields of the recipe changed: a number of steps or minutes extends the training.

        It may have been written by another number of processes.
        """
        config, vocab = run.config(), run.vocab()
        if config.spec:
            run.check_vocab(config.spec, vocab)
        recipe = replace(config.recipe, **changes)
        check_processes(config, peers)
        peers.check_same(identity(replace(config, recipe=recipe), vocab))
        with ExitStack() as unless_started:
            with peers.together():
                if peers.is_first:
                    unless_started.enter_context(WriterLock(run.folder))
            trainer = cls(run, replace(config, recipe=recipe), Tokens.open(run.train_folder / "tokens"), peers)
            if found := newest(run.train_folder):
                check_identity(run, found, config.spec, vocab)
                load_checkpoint(found, trainer.state)
            with peers.together():
                if peers.is_first and found:
                    publish(run, recipe.kept)
                if changes:
                    trainer._check_longer(config.recipe)
                if peers.is_first:
                    if changes:
                        trainer.config.save(run.config_path)
                    Metrics(run.train_folder).forget_after(trainer.state.step)
            trainer._lock = unless_started.pop_all()
        return trainer

    def _check_longer(self, before: Recipe) -> None:
        """Raises UsageError when a changed recipe leaves nothing to do."""
        if self.recipe != before and self.is_over:
            raise UsageError(
                f"the training in {self.run.folder} is at step {self.state.step}, "
                f"after {self.state.elapsed_sec / 60:.1f} minutes: there is nothing left to do",
                hint="--resume takes the total of --steps or --minutes, those already done included",
            )

    @property
    def is_over(self) -> bool:
        return self._reached or self.schedule.is_over(self.state.step, self.state.elapsed_sec)

    @property
    def _reached(self) -> bool:
        """Whether the newest checkpoint's validation is as low as the recipe asks."""
        aim = self.recipe.until_loss
        found = newest(self.run.train_folder) if aim is not None else None
        return aim is not None and found is not None and found.validation_nats <= aim

    def close(self) -> None:
        self._lock.close()

    def steps(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Report]:
        """Trains, yielding every step; when `stop` says so, saves and ends. Metrics are on disk before a step is yielded."""
        peers = self.peers
        metrics = MetricsWriter(Metrics(self.run.train_folder), self.state.step) if peers.is_first else None
        try:
            while not self.is_over and not any(peers.gathered(stop())):
                report = self._step()
                if metrics:
                    metrics.write(report.metrics())
                if report.validation:
                    self._save(report.validation.nats_per_token, whole=self.recipe.row_place == "memory" or self.is_over)
                elif self.schedule.checkpoint_due(report.step):
                    self._save(None, whole=False)
                yield report
            found = newest(self.run.train_folder)
            if found is None or found.step != self.state.step or not found.is_whole:
                self._save(None)
        finally:
            if metrics:
                metrics.close()
            self.close()

    def _step(self) -> Report:
        """Takes a step, with its validation and its sample where they are due."""
        state, began = self.state, time.perf_counter() - self.state.elapsed_sec
        due = self.schedule.validations_due(state.step, state.elapsed_sec)
        loss = self._checked_step()
        self._trained_tokens += self.recipe.batch * self.recipe.length
        self._trained_sec += time.perf_counter() - began - state.elapsed_sec
        speed = self._trained_tokens / self._trained_sec
        state.elapsed_sec = self._clock(began)
        validation = sample = None
        if self.schedule.validations_due(state.step, state.elapsed_sec) > due:
            validation, sample = self.validate(), self.sample()
            self.last_validation = validation
        state.elapsed_sec = self._clock(began)
        passed = self.schedule.passed(state.step, state.elapsed_sec)
        return Report(state.step, loss, speed, state.elapsed_sec, passed, validation, sample)

    def _clock(self, began: float) -> float:
        """Seconds since then on the first process's clock, which decides for all."""
        return self.peers.gathered(time.perf_counter() - began)[0]

    def _checked_step(self) -> float:
        """One batch; its loss. Raises EngramError, after which nothing is saved, when it has none or does not fit in memory."""
        try:
            loss = self.train_step()
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e):
                raise
            raise EngramError(
                f"there is not enough memory for a batch of {self.recipe.batch} sequences of {self.recipe.length} tokens "
                f"in {self.recipe.accumulate} part{'s' * (self.recipe.accumulate > 1)}",
                hint=f"train with a larger recipe.accumulate, which divides {self.recipe.batch}, or a smaller recipe.batch",
            ) from e
        if isfinite(loss):
            return loss
        found = newest(self.run.train_folder)
        stays = f"; the checkpoint of step {found.step} stays" if found else ""
        raise EngramError(f"the loss of step {self.state.step} is {loss}, which ends the training{stays}", hint=DIVERGED_HINT)

    def train_step(self) -> float:
        """One batch; its loss in nats per token."""
        batch, state = self.feed.take(self.state.step), self.state
        rate = self.recipe.learning_rate * self.schedule.rate(state.step, state.elapsed_sec)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        parts = [*batch.parts(self.recipe.accumulate)]
        with self._unsummed():
            losses = [self._backward(part) for part in parts[:-1]]
        losses.append(self._backward(parts[-1]))
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), MAX_GRADIENT_NORM)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        for load in state.model.expert_loads():
            self.peers.total_of(load)
        state.model.balance_experts(self.recipe.balance_rate)
        if self.recipe.rows == "trained":
            self._update_rows(batch, rate * self.recipe.row_rate_factor)
        state.step += 1
        return sum(self.peers.gathered(sum(losses))) / self._parts

    @property
    def _parts(self) -> int:
        """That a batch is computed in, by all processes."""
        return self.recipe.accumulate * self.peers.count

    def _unsummed(self) -> AbstractContextManager[None]:
        """Within the block gradients are not yet added up over the processes."""
        return self._loss.no_sync() if isinstance(self._loss, DistributedDataParallel) else nullcontext()

    def _update_rows(self, batch: Batch, learning_rate: float) -> None:
        self.feed.write(batch, learning_rate)
        for layer, rows in batch.rows.moved.items():
            self.state.mark(layer, rows)

    def _backward(self, part: Batch) -> float:
        """Adds a part's share to the gradients of the batch; the part's loss in nats per token."""
        with autocast(self.device, self.config.precision):
            vectors = {layer: leaf.batch_vectors() for layer, leaf in part.leaves.items()}
            loss = self._loss(part.inputs, part.targets, vectors)
        (loss / self._parts).backward()
        return float(loss.detach())

    def lookup(self) -> Lookup | None:
        """The way to the rows as they are now; None without memory."""
        return Lookup(self.addressing, self.state.rows) if self.addressing else None

    def validate(self, memory: bool = True) -> Validation:
        """The loss over the validation side, with the memory or with it suppressed."""
        lookup = self.lookup() if memory else None
        return validate(
            self.state.model, self.tokens, self.recipe.length, self.config.precision, lookup, self.validation_tokens
        )

    @property
    def validation_tokens(self) -> int:
        """How many tokens a validation is to take, by how many are trained on from one to the next."""
        had = max(1, self.schedule.validations_due(self.state.step, self.state.elapsed_sec))
        return validation_budget(self.state.step * self.recipe.batch * self.recipe.length // had)

    def sample(self) -> str | None:
        """The recipe's prompt and the likeliest tokens after it; None where the recipe asks for none."""
        prompt = self.tokenizer.encode(self.recipe.sample_prompt, add_special_tokens=False).ids
        if not self.recipe.sample_tokens:
            return None
        sequence, following, ids = (
            Sequence(self.state.model, self.lookup()),
            prompt or [self.vocab.end_of_text_id],
            list(prompt),
        )
        for _ in range(self.recipe.sample_tokens):
            following = [int(sequence.feed(following).argmax())]
            ids += following
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def _save(self, validation_nats: float | None, whole: bool = True) -> None:
        """Raises EngramError, and leaves the checkpoint before, when the drive does not take it."""
        began, before, peers = time.perf_counter(), newest(self.run.train_folder), self.peers
        try:
            save_checkpoint(self.run.train_folder, self.state, self.config.spec, self.vocab, validation_nats, whole, peers)
            with peers.together():
                if peers.is_first:
                    publish(self.run, self.recipe.kept)
        except OSError as e:
            stays = f"; that of step {before.step} stays" if before else ""
            raise EngramError(
                f"the checkpoint of step {self.state.step} cannot be written: {e.strerror}{stays}",
                hint=f"once there is room, {self.run.command('train --resume')} goes on",
            ) from e
        self.state.elapsed_sec += self._clock(began)
