"""Job: one training of a sweep, in a process of its own with one thread, and what is measured when it has ended.

    python -m runtime.sweep.job SWEEP_FOLDER ARM SEED

It begins the training or goes on with it, and leaves the result beside the run's folder, which it then removes unless the sweep
keeps its runs. On Ctrl-C it saves and stops, and so it does when the process that started it is gone.
"""

import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from hashing.base.atomic import remove
from hashing.base.errors import EngramError
from hashing.text.planted import KINDS
from runtime.ablation import intact, suppressed
from runtime.config import RunConfig
from runtime.evaluation import evaluate
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.sweep.cloze import Asked, right_percent
from runtime.sweep.folder import SweepFolder
from runtime.train.metrics import Metrics
from runtime.train.trainer import Trainer
from runtime.validation import VALIDATION_TOKENS
from runtime.windows import Side, Texts

STOPPED = 130  # exit status of a job that was interrupted, and has saved


@dataclass(frozen=True, slots=True)
class Job:
    sweep: SweepFolder
    arm: str
    seed: int

    @property
    def run(self) -> Run:
        return Run(self.sweep.run_folder(self.arm, self.seed))

    def do(self, stop: Callable[[], bool]) -> bool:
        """Whether it is done, and its result there; if not it was stopped."""
        trainer = self._trainer()
        for _ in trainer.steps(stop):
            pass
        if not trainer.is_over:
            return False
        curve = [[m["step"], m["validation_nats"]] for m in Metrics(self.run.train_folder).lines() if "validation_nats" in m]
        self.sweep.write_result(self.arm, self.seed, {**self._measured(trainer), "validations": curve})
        if not self.sweep.keeps_runs:
            remove(self.run.folder)
        return True

    def _trainer(self) -> Trainer:
        run = self.run
        if run.config_path.exists():
            return Trainer.resume(run)
        material = self.sweep.material
        material.prepare(run, self.sweep.rule(self.arm))
        return Trainer.start(run, self.config(run), material.corpus, encoded=material.tokens)

    def config(self, run: Run) -> RunConfig:
        """The arm's settings over the run's vocabulary, with the job's seed."""
        settings = self.sweep.settings(self.arm)
        settings = replace(settings, recipe=replace(settings.recipe, seed=self.seed))
        assert settings.precision, "all arms of a sweep are computed in the same numbers"
        return settings.resolve(run.vocab(), settings.precision)

    def _measured(self, trainer: Trainer) -> dict[str, Any]:
        state = trainer.state
        tables = [table.weight for table in state.tables.values()]
        return {
            "arm": self.arm,
            "seed": self.seed,
            "steps": state.step,
            "seconds": state.elapsed_sec,
            "parameters": sum(p.numel() for p in state.model.parameters()) + sum(w.numel() for w in tables),
            "table_parameters": sum(weight.numel() for weight in tables),
            "flops_per_token": flops_per_token(trainer),
            **self._losses(trainer),
            **self._answers(trainer),
        }

    def _losses(self, trainer: Trainer) -> dict[str, Any]:
        """On the validation side and on the other domain, with the memory and, where there is one, with it suppressed."""
        config, tokens, tokenizer = trainer.config, trainer.tokens, trainer.tokenizer
        encoded = [one.ids for one in tokenizer.encode_batch(self.sweep.material.other_domain(), add_special_tokens=False)]
        length, end_id = config.recipe.length, trainer.vocab.end_of_text_id
        texts: dict[str, Side | Texts] = {
            "": Side(tokens, length, VALIDATION_TOKENS),
            "other_domain_": Texts(encoded, length, end_id),
        }
        variants = {"": intact, "suppressed_": suppressed} if config.spec else {"": intact}
        found: dict[str, Any] = {}
        for domain, windows in texts.items():
            losses = evaluate(trainer.state.model, config.precision, trainer.lookup(), windows, variants).losses
            found |= {f"{domain}{variant}nats": loss.nats_per_token for variant, loss in losses.items()}
        return {**found, "bits_per_byte": found["nats"] / math.log(2) * tokens.per_byte("validation")}

    def _answers(self, trainer: Trainer) -> dict[str, Any]:
        """Percent right of each kind of questions, with the memory and, where there is one, with it suppressed."""
        questions, found = self.sweep.material.questions(), {}
        lookup = trainer.lookup()
        lookups = {"": lookup, "suppressed_": None} if lookup else {"": None}
        for kind in KINDS:
            end_id = trainer.vocab.end_of_text_id
            asked = [Asked.of(question, trainer.tokenizer, end_id) for question in questions if question.kind == kind]
            name = "facts" if kind == "fact" else kind
            for variant, given in lookups.items():
                found[f"{name}_{variant}percent"] = right_percent(trainer.state.model, given, asked)
        return found


@torch.no_grad()
def flops_per_token(trainer: Trainer) -> float:
    """Of matrix products in a forward pass over a window of the training's length, two for each multiply-add."""
    model: LanguageModel = trainer.state.model
    inputs = trainer.batches.at(0)[0][:1]
    lookup = trainer.lookup()
    vectors = lookup.vectors(inputs) if lookup else None
    with FlopCounterMode(display=False) as counter:
        model.logits(torch.from_numpy(inputs.copy()).to(model.device), vectors)
    return float(counter.get_total_flops() / inputs.shape[1])


def main() -> int:
    """The exit status: 0 for a job that is done, STOPPED for one that has saved, 1 with a sentence for an error."""
    folder, arm, seed = sys.argv[1:]
    asked, parent = [], os.getppid()
    signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    torch.set_num_threads(1)
    try:
        done = Job(SweepFolder(Path(folder)), arm, int(seed)).do(lambda: bool(asked) or os.getppid() != parent)
    except EngramError as e:
        print(f"error: {e}\nhint: {e.hint}" if e.hint else f"error: {e}", file=sys.stderr)
        return 1
    return 0 if done else STOPPED


if __name__ == "__main__":
    sys.exit(main())
