"""Training goes on after a kill as if nothing had happened, costs nothing for rows it does not read, and keeps its promises."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hashing.base.errors import EngramError
from hashing.text.corpus import Corpus
from runtime.device import fast_precision
from runtime.run import Run
from runtime.tensor_file import load_tensors, save_tensors
from runtime.tokens import Tokens
from runtime.train.batches import Batches
from runtime.train.presets import preset
from runtime.train.trainer import Trainer
from runtime.trained_run import TrainedRun
from table.store.store import TableStore
from tests.runs import build_vocab

STEPS = 40


def losses(run: Run) -> list[tuple[float, ...]]:
    lines = (run.train_folder / "metrics.jsonl").read_text().splitlines()
    return [
        tuple(v for k, v in json.loads(line).items() if k not in {"tokens_per_sec", "elapsed_sec", "sample"}) for line in lines
    ]


def start(run: Run, corpus_path: Path) -> Trainer:
    corpus = Corpus((corpus_path,))
    build_vocab(run, corpus)
    return Trainer.start(run, preset("nano", run.vocab(), "float32", STEPS, 3), corpus)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, corpus_path: Path) -> list[tuple[float, ...]]:
    run = Run(tmp_path_factory.mktemp("whole") / "run")
    for _ in start(run, corpus_path).steps():
        pass
    found = losses(run)
    assert len(found) == STEPS
    assert found[-1][1] < found[0][1] - 0.5, "it learns"
    return found


@pytest.mark.parametrize("attempt", range(3))
def test_sigkill_and_resume_give_the_same_losses(
    tmp_path: Path, corpus_path: Path, uninterrupted: list[tuple[float, ...]], attempt: int
) -> None:
    """A child trains, announces every step, and is killed at a random moment of its steps or its checkpoints."""
    run = Run(tmp_path / "run")
    start(run, corpus_path)
    child = (
        "import sys\nfrom pathlib import Path\nfrom runtime.run import Run\nfrom runtime.train.trainer import Trainer\n"
        "for report in Trainer.resume(Run(Path(sys.argv[1]))).steps():\n    print(report.step, flush=True)"
    )
    chance = random.Random(attempt)
    for last in (chance.randrange(1, 20), chance.randrange(20, STEPS)):
        with subprocess.Popen([sys.executable, "-c", child, str(run.folder)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= last:
                    time.sleep(chance.random() * 0.05)
                    os.kill(process.pid, signal.SIGKILL)
                    break
    for _ in Trainer.resume(run).steps():
        pass
    assert losses(run) == uninterrupted
    TrainedRun.load(run, torch.device("cpu"))


def test_stopping_saves_where_it_stopped(tmp_path: Path, corpus_path: Path, uninterrupted: list[tuple[float, ...]]) -> None:
    run = Run(tmp_path / "run")
    trainer = start(run, corpus_path)
    for _ in trainer.steps(stop=lambda: trainer.state.step == 7):
        pass
    again = Trainer.resume(run)
    assert again.state.step == 7
    for _ in again.steps():
        pass
    assert losses(run) == uninterrupted


def test_each_epoch_visits_every_window_once() -> None:
    ids = np.arange(101, dtype=np.int32)
    batches = Batches(ids, batch=2, length=10, seed=1)
    for epoch in range(2):
        firsts = np.concatenate([batches.at(step)[0][:, 0] for step in range(epoch * 5, epoch * 5 + 5)])
        assert sorted(firsts) == list(range(0, 100, 10))
    inputs, targets = batches.at(3)
    assert np.array_equal(inputs + 1, targets)


def test_the_encoded_corpus_is_the_corpus(trained_run: Run, corpus_path: Path) -> None:
    tokens, tokenizer = Tokens.open(trained_run.train_folder / "tokens"), trained_run.tokenizer()
    for side in ("train", "validation"):
        texts = [d.text for d in Corpus((corpus_path,)).documents() if d.side == side]
        assert tokenizer.decode(tokens.ids(side).tolist(), skip_special_tokens=True) == "".join(texts)
        assert tokens.text_bytes[side] == sum(len(text.encode()) for text in texts)


def test_a_model_and_tables_of_different_steps_are_refused(tmp_path: Path, corpus_path: Path) -> None:
    run = Run(tmp_path / "run")
    trainer = start(run, corpus_path)
    for _ in trainer.steps(stop=lambda: trainer.state.step == 2):
        pass
    older = tmp_path / "older.safetensors"
    os.link(run.model_path, older)
    for _ in trainer.steps(stop=lambda: trainer.state.step == 3):
        pass
    older.replace(run.model_path)
    with pytest.raises(EngramError, match=r"of step 2.*of step 3"):
        TrainedRun.load(run, torch.device("cpu"))
    Trainer.resume(run)
    TrainedRun.load(run, torch.device("cpu"))


def test_tables_of_another_vocabulary_are_refused(tmp_path: Path, corpus_path: Path) -> None:
    run = Run(tmp_path / "run")
    trainer = start(run, corpus_path)
    for _ in trainer.steps(stop=lambda: trainer.state.step == 1):
        pass
    build_vocab(run, Corpus((corpus_path,)), size=400)
    fingerprint = TableStore.open(run.tables_path).spec.vocab_fingerprint
    with pytest.raises(EngramError, match=fingerprint):
        TrainedRun.load(run, torch.device("cpu"))
    with pytest.raises(EngramError, match=fingerprint):
        Trainer.resume(run)


@pytest.mark.parametrize("content", [None, "", "one short document"])
def test_a_new_training_that_cannot_begin_leaves_the_old_one(tmp_path: Path, trained_run: Run, content: str | None) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(trained_run.folder, run.folder)
    before = contents(run.folder)
    if content is not None:
        (tmp_path / "corpus.txt").write_text(content)
    with pytest.raises(EngramError, match=r"no such file|empty|no document|more than one window"):
        Trainer.start(run, preset("nano", run.vocab(), "float32"), Corpus((tmp_path / "corpus.txt",)))
    assert contents(run.folder) == before
    TrainedRun.load(run, torch.device("cpu"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_resuming_a_finished_training_leaves_nothing_behind(tmp_path: Path, trained_run: Run) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(trained_run.folder, run.folder)
    Trainer.resume(run)
    before = contents(run.folder)
    Trainer.resume(run)
    assert contents(run.folder) == before
    assert not list(run.folder.rglob("*.partial"))


def test_a_model_s_file_is_as_readable_as_any_and_its_bytes_follow_from_its_content(tmp_path: Path) -> None:
    tensors, metadata = {"a": torch.ones(3), "b": torch.zeros(2, 2)}, {"step": "3", "spec": "x", "more": "y"}
    files = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for file in files:
        save_tensors(tensors, file, dict(sorted(metadata.items(), reverse=file == files[0])))
    (tmp_path / "any").touch()
    assert {file.stat().st_mode for file in files} == {(tmp_path / "any").stat().st_mode}
    assert len({file.read_bytes() for file in files}) == 1
    loaded, found = load_tensors(files[0])
    assert found == metadata
    assert loaded.keys() == tensors.keys()


def test_bfloat16_products_learn_as_float32_ones_do(tmp_path: Path, corpus_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        run = Run(tmp_path / precision)
        build_vocab(run, Corpus((corpus_path,)))
        trainer = Trainer.start(run, preset("nano", run.vocab(), precision, steps=20), Corpus((corpus_path,)))
        losses.append([trainer.train_step() for _ in range(20)])
    assert losses[0] != losses[1]
    assert losses[0][-1] < losses[0][0] - 0.5
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_products_are_in_bfloat16_where_the_processor_has_matrix_units_for_it() -> None:
    """Vector instructions alone decide nothing: with them torch is faster in bfloat16 on some processors, slower on others."""
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    if "amx_bf16" not in flags:
        pytest.skip("this processor has none")
    assert fast_precision(torch.device("cpu")) == "bfloat16"
