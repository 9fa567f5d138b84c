"""`engram bench train` measures what it says: steps that train, and parts that are all there."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engram_cli.bench.train_speed import PARTS, Peer, trainer, with_rows
from hashing.text.corpus import Corpus
from runtime.run import Run
from runtime.train.presets import preset
from runtime.train.trainer import Trainer
from tests.commands import document, engram, refused
from tests.runs import build_vocab


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus_path: Path) -> Run:
    run, corpus = Run(tmp_path_factory.mktemp("bench") / "run"), Corpus((corpus_path,))
    build_vocab(run, corpus)
    Trainer.start(run, preset("nano", run.vocab(), "float32", steps=1), corpus).close()
    return run


def test_figures_of_every_way(run: Run) -> None:
    sizes = ("--rows", 1000, "--rows", 5000, "--peer-rows", 3000)
    content = document("bench", "train", "--run", run.folder, *sizes, "--rounds", 1)
    assert list(content["step_millisec"]) == ["none", "rows_1000", "rows_5000", "rows_3000", "sparse_adam", "adam"]
    assert min(content["step_millisec"].values()) > 0
    assert set(content["part_millisec"]) == set(PARTS)
    assert content["times_first_tables"]["rows_1000"] == 1
    assert content["times_peer"].keys() == {"sparse_adam", "adam"}
    assert content["disk_millisec"].keys() == {"memory", "disk"}
    assert content["disk_times_memory"] > 0
    assert not [*run.train_folder.glob("bench-*")]


@pytest.mark.parametrize("sparse", [True, False])
def test_a_peer_trains_the_same_model_on_the_same_batches(run: Run, sparse: bool) -> None:
    config = with_rows(run.config(), run, 3000)
    peer, own = Peer(run, config, sparse), trainer(run, config)
    weights = {layer: table.weight for layer, table in own.state.tables.items()}
    with torch.no_grad():
        for layer, table in peer.tables.items():
            table.weight.copy_(weights[layer])
    assert peer.train_step() == pytest.approx(own.train_step(), abs=1e-5)
    before = {layer: table.weight.clone() for layer, table in peer.tables.items()}
    peer.train_step()
    assert all(not torch.equal(before[layer], table.weight) for layer, table in peer.tables.items())


def test_a_run_without_memory_is_refused(tmp_path: Path, corpus_path: Path) -> None:
    run, corpus = Run(tmp_path), Corpus((corpus_path,))
    build_vocab(run, corpus)
    config = preset("nano", run.vocab(), "float32", steps=1)
    Trainer.start(run, replace(config, spec=None, model=replace(config.model, memory=None)), corpus).close()
    refused(engram("bench", "train", "--run", tmp_path), 1, f"the run {tmp_path} has no memory to measure")
