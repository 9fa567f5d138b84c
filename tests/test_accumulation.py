"""A batch that is computed in parts is the batch: its loss, its gradients, its rows' updates and its routers' balance."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hashing.base.errors import UsageError
from hashing.text.corpus import Corpus
from runtime.run import Run
from runtime.train.choice import chosen_settings
from runtime.train.trainer import Trainer
from tests.runs import build_vocab

STEPS = 4
ADAM = ["recipe.optimizer=adamw", "recipe.row_rule=adam", "recipe.row_momentum=none"]  # which keep a mean of gradients
SETS = [
    [],
    ["model.experts=4", "model.blocks=3", "model.expert_ffn=32", "recipe.balance_rate=0.02"],
    ["model.streams=3"],
    ["memory=none"],
]


def started(run: Run, corpus_path: Path, sets: list[str], accumulate: int) -> Trainer:
    config = chosen_settings(preset="nano", sets=[*ADAM, *sets, f"recipe.accumulate={accumulate}"]).resolve(
        run.vocab(), "float32"
    )
    trainer = Trainer.start(run, config, Corpus((corpus_path,)))
    trainer.close()
    return trainer


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    """After the first step: what the optimisers keep of its gradients, which is those times a number."""
    state = trainer.state
    backbone = {name: state.optimizer.state[p]["exp_avg"].clone() for name, p in state.model.named_parameters()}
    return backbone | {f"rows of {layer}": table.state()["moment"].clone() for layer, table in state.tables.items()}


@pytest.mark.parametrize("sets", SETS, ids=" ".join)
def test_parts_of_a_batch_are_trained_as_the_batch(tmp_path: Path, corpus_path: Path, sets: list[str]) -> None:
    run = Run(tmp_path / "run")
    build_vocab(run, Corpus((corpus_path,)))
    whole = started(run, corpus_path, sets, 1)
    losses, expected = [whole.train_step()], gradients(whole)
    losses += [whole.train_step() for _ in range(STEPS)]
    for accumulate in (2, 4):
        parts = started(run, corpus_path, sets, accumulate)
        found = [parts.train_step()]
        torch.testing.assert_close(gradients(parts), expected, rtol=1e-3, atol=1e-8)
        found += [parts.train_step() for _ in range(STEPS)]
        assert found == pytest.approx(losses, rel=1e-4)
        for layer, table in whole.state.tables.items():
            updates = parts.state.tables[layer].state()["updates"]
            assert torch.equal(updates, table.state()["updates"]), "a row is updated once a step"
        biases = [[b for n, b in t.state.model.state_dict().items() if n.endswith("ffn.bias")] for t in (whole, parts)]
        assert all(map(torch.equal, *biases))
        assert bool(biases[0]) == ("model.experts=4" in sets)


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(UsageError, match=r"recipe\.batch is 4, which does not split into 3 equal parts"):
        chosen_settings(preset="nano", sets=["recipe.accumulate=3"])
