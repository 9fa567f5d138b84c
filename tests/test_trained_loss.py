"""The loss that torch compiles, and a projection in FP8, are the plain ones as nearly as their numbers allow."""

import shutil
from pathlib import Path

import pytest
import torch

from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus
from runtime.model.config import MemoryConfig, ModelConfig
from runtime.model.float8 import Float8Linear
from runtime.model.language_model import LanguageModel
from runtime.model.memory import EngramMemory
from runtime.run import Run
from runtime.train.choice import chosen_settings
from runtime.train.loss import trained_loss
from runtime.train.trainer import Trainer
from tests.runs import build_vocab


def small(width: int) -> ModelConfig:
    return ModelConfig(40, 16, 1, 2, 32, MemoryConfig((0,), width, 3))


def started(run: Run, corpus_path: Path, *sets: str) -> Trainer:
    config = chosen_settings(preset="nano", sets=sets).resolve(run.vocab(), "float32")
    trainer = Trainer.start(run, config, Corpus((corpus_path,)))
    trainer.close()
    return trainer


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch's compiler imports
def test_a_compiled_training_is_the_plain_one(tmp_path: Path, corpus_path: Path) -> None:
    run = Run(tmp_path / "run")
    build_vocab(run, Corpus((corpus_path,)))
    sets = "recipe.optimizer=adamw", "model.blocks=1", "memory.layers=0"  # torch compiles each block by itself
    trainers = (started(run, corpus_path, *sets, f"recipe.compile={compiled}") for compiled in ("false", "true"))
    losses = [[trainer.train_step() for _ in range(4)] for trainer in trainers]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    recipe = chosen_settings(preset="nano", sets=["recipe.compile=true"]).recipe
    with pytest.raises(EngramError, match="needs a C\\+\\+ compiler"):
        trained_loss(LanguageModel(small(48)), recipe)


def test_products_in_fp8_are_those_of_floats_within_its_digits() -> None:
    torch.manual_seed(0)
    x, weight, direction = (torch.randn(shape) for shape in ((64, 32), (48, 32), (64, 48)))
    found, expected = ([t.clone().requires_grad_() for t in (x, weight)] for _ in range(2))
    out = Float8Linear.apply(*found)
    plain = torch.nn.functional.linear(*expected)
    for result in (out, plain):
        result.backward(direction.to(result.dtype))
    for near, exact in ((out, plain), *((f.grad, e.grad) for f, e in zip(found, expected, strict=True))):
        error = (near.float() - exact).norm() / exact.norm()
        assert error < 0.08, "numbers are rounded by 2^-4 of them at most in e4m3, and by 2^-3 in e5m2"
        assert error > 1e-4, "it is not computed in floats"


@pytest.mark.parametrize("streams", [1, 4])
def test_a_memory_with_its_projection_in_fp8(streams: int) -> None:
    torch.manual_seed(0)
    memory = EngramMemory(MemoryConfig((0,), 32, 3, bias=True), 16, streams)
    hidden, vectors = torch.randn(3, 7, streams, 16), torch.randn(3, 7, 32)  # 21 positions, no multiple of 16
    plain = memory(hidden, vectors)
    memory.float8 = True
    near = memory(hidden, vectors)
    assert 1e-4 < float(((near - plain).norm() / plain.norm()).detach()) < 0.1
    with torch.no_grad():
        assert torch.equal(memory(hidden, vectors), memory(hidden, vectors.clone())), "only training computes in FP8"


def test_a_training_in_fp8_learns_as_the_plain_one(tmp_path: Path, corpus_path: Path) -> None:
    run = Run(tmp_path / "run")
    build_vocab(run, Corpus((corpus_path,)))
    trainers = (started(run, corpus_path, f"recipe.float8_projection={float8}") for float8 in ("false", "true"))
    losses = [[trainer.train_step() for _ in range(20)] for trainer in trainers]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.1)


def test_sizes_that_fp8_does_not_take_are_refused() -> None:
    recipe = chosen_settings(preset="nano", sets=["recipe.float8_projection=true"]).recipe
    with pytest.raises(EngramError, match="from 12 numbers to 32 is not for FP8"):
        trained_loss(LanguageModel(small(12)), recipe)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_in_fp8_on_a_cuda_device() -> None:
    x, weight = torch.randn(64, 32, device="cuda"), torch.randn(48, 32, device="cuda")
    exact = torch.nn.functional.linear(x, weight)
    assert (Float8Linear.apply(x, weight).float() - exact).norm() / exact.norm() < 0.06
