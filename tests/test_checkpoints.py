"""A checkpoint costs what has changed since the one before, and gives back the state to the bit whatever came before it."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hashing.base.errors import EngramError
from runtime.checkpoints import BASE, MOMENTS, OPTIMIZER, Checkpoint, best_checkpoint, checkpoints
from runtime.config import RunConfig
from runtime.inspect.reads import Reads
from runtime.model.language_model import LanguageModel
from runtime.run import Run
from runtime.tensor_file import load_tensors, save_tensors
from runtime.train import row_files
from runtime.train.checkpoint import load_checkpoint, save_checkpoint
from runtime.train.choice import chosen_settings
from runtime.train.optimisers import backbone_optimizer
from runtime.train.row_table import RowTable
from runtime.train.rows import OwnRows
from runtime.train.state import State
from table.store.store import TableStore
from tests.vocabularies import raw_vocab

VOCAB = raw_vocab(300)
CPU = torch.device("cpu")
ROWS_PER_HEAD = 500


def configured(rows_per_head: int = ROWS_PER_HEAD) -> RunConfig:
    sets = ["memory.layers=0,1", f"memory.rows_per_head={rows_per_head}", "memory.heads=2"]
    return chosen_settings(preset="nano", sets=sets).resolve(VOCAB, "float32")


def begun(config: RunConfig) -> State:
    """A state as a training begins: the same each time."""
    torch.manual_seed(0)
    model, spec = LanguageModel(config.model), config.spec
    assert spec is not None
    tables = {layer: RowTable.create(spec.rows(layer), config.head_dim, 0.02, layer, CPU) for layer in spec.layers}
    return State(model, backbone_optimizer(model, config.recipe), OwnRows(tables))


def touch(state: State, chance: random.Random, count: int) -> None:
    """A step that changes everything of the backbone, and `count` rows of each layer."""
    for parameter in state.model.parameters():
        parameter.grad = torch.full_like(parameter, chance.random())
    state.optimizer.step()
    for layer, table in state.tables.items():
        rows = torch.tensor(sorted(chance.sample(range(len(table.weight)), count)), dtype=torch.int64)
        for array in table.state().values():
            array[rows] += chance.random()
        state.mark(layer, rows)
    state.step += 1


def everything(state: State) -> dict[str, Tensor]:
    rows = {f"{layer}/{name}": array for layer, table in state.tables.items() for name, array in table.state().items()}
    optimiser = {
        f"{name}/{key}": value
        for name, parameter in state.model.named_parameters()
        for key, value in state.optimizer.state[parameter].items()
    }
    return {name: tensor.clone() for name, tensor in (state.model.state_dict() | rows | optimiser).items()}


def loaded(config: RunConfig, checkpoint: Checkpoint) -> State:
    found = begun(config)
    load_checkpoint(checkpoint, found)
    return found


def new_bytes(checkpoint: Checkpoint) -> int:
    """Of the files that are in no other checkpoint."""
    return sum(path.stat().st_size for path in checkpoint.folder.rglob("*") if path.is_file() and path.stat().st_nlink == 1)


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def save(folder: Path, config: RunConfig, state: State, nats: float | None = None, whole: bool = True) -> Checkpoint:
    return save_checkpoint(folder, state, config.spec, VOCAB, nats, whole)


@pytest.mark.parametrize("seed", range(4))
def test_every_checkpoint_gives_its_state_back(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows and many, whole and not, from a state that went on and from one that was loaded, and with others removed."""
    monkeypatch.setattr(row_files, "ROWS_AT_ONCE", 50)  # so that changes take several files
    config, chance = configured(), random.Random(seed)
    state, expected = begun(config), {}
    save(tmp_path, config, state)
    state.step = 7  # so that numbers get longer on the way
    for _ in range(10):
        for _ in range(chance.randrange(1, 4)):
            touch(state, chance, chance.choice([0, 1, 20, 150, 900]))
        whole = chance.random() < 0.3
        checkpoint = save(tmp_path, config, state, whole=whole)
        expected[checkpoint] = everything(state)
        if checkpoint.is_whole:
            store = TableStore.open(checkpoint.folder / "tables.zarr")
            assert store.step == state.step
            for layer, table in state.tables.items():
                assert torch.equal(torch.from_numpy(store.layer(layer).copy()), table.weight)
        else:
            assert not whole
            assert not (checkpoint.folder / "tables.zarr").exists()
        if chance.random() < 0.5:
            state = loaded(config, checkpoint)
        if chance.random() < 0.5:
            removed = checkpoints(tmp_path)[0]
            shutil.rmtree(removed.folder)
            expected.pop(removed, None)
    for checkpoint, kept in expected.items():
        found = loaded(config, checkpoint)
        assert equal(everything(found), kept)
        assert found.step == checkpoint.step
    forms = {(checkpoint.is_whole, bool(checkpoint.changes())) for checkpoint in expected}
    assert (False, True) in forms


def test_a_checkpoint_costs_what_has_changed_whatever_the_tables_are(tmp_path: Path) -> None:
    costs = {}
    for rows_per_head in (2000, 8000):
        config = configured(rows_per_head)
        state, folder, chance = begun(config), tmp_path / str(rows_per_head), random.Random(0)
        save(folder, config, state)
        for count in (1, 40, 80):
            touch(state, chance, count)
            costs[rows_per_head, count] = new_bytes(save(folder, config, state, whole=False))
    row_bytes = sum(array.nbytes for array in state.tables[0].state().values()) // len(state.tables[0].weight)
    for count in (1, 40, 80):
        assert costs[2000, count] == costs[8000, count]
    assert costs[8000, 80] - costs[8000, 40] == 2 * 40 * (row_bytes + 8), "of two layers"
    assert costs[8000, 80] < costs[8000, 1] * 1.2


def test_changes_are_folded_before_they_are_more_than_half(tmp_path: Path) -> None:
    config, chance = configured(), random.Random(0)
    state = begun(config)
    all_bytes = sum(array.nbytes for table in state.tables.values() for array in table.state().values())
    rows = len(state.tables[0].weight) // 10
    save(tmp_path, config, state)
    folded = []
    for _ in range(12):
        touch(state, chance, rows)
        checkpoint = save(tmp_path, config, state, whole=False)
        assert sum(path.stat().st_size for path in checkpoint.changes()) < 0.51 * all_bytes
        folded.append(checkpoint.is_whole)
    assert folded == [False] * 4 + [True] + [False] * 4 + [True] + [False] * 2


def test_a_whole_checkpoint_writes_tables_and_of_moments_only_what_has_changed(tmp_path: Path) -> None:
    config, chance = configured(8000), random.Random(0)
    state = begun(config)
    save(tmp_path, config, state)
    for _ in range(3):
        touch(state, chance, 50)
        checkpoint = save(tmp_path, config, state, 3.0)
        assert checkpoint.is_whole
        assert not (checkpoint.folder / MOMENTS).exists()
        assert all("layers/0/weight" not in load_tensors(path)[0] for path in checkpoint.changes())
    assert len(checkpoint.changes()) == 3 * len(state.tables)


def test_the_best_checkpoint_is_one_that_is_whole(tmp_path: Path) -> None:
    config, chance = configured(), random.Random(0)
    state = begun(config)
    save(tmp_path, config, state)
    touch(state, chance, 1)
    assert not save(tmp_path, config, state, whole=False).is_whole
    assert best_checkpoint(tmp_path).step == 0


def test_reads_are_counted_through_changes(tmp_path: Path) -> None:
    config, chance, run = configured(), random.Random(0), Run(tmp_path)
    state = begun(config)
    save(run.train_folder, config, state)
    for count, whole in ((30, False), (30, True), (1500, True), (30, False), (30, True)):
        touch(state, chance, count)
        checkpoint = save(run.train_folder, config, state, whole=whole)
        if checkpoint.is_whole:
            reads = Reads.of(run, TableStore.open(checkpoint.folder / "tables.zarr"))
            assert reads is not None
            for layer, table in state.tables.items():
                assert torch.equal(torch.from_numpy(reads.of_layer(layer)), table.state()["updates"])
                rows = chance.sample(range(len(table.weight)), 40)
                assert reads.of_rows(layer, rows) == [int(n) for n in table.state()["updates"][rows]]
    assert (checkpoint.folder / MOMENTS).exists()


def test_what_the_version_before_wrote_is_loaded_and_gone_on_from(tmp_path: Path) -> None:
    """It kept all moments in the optimiser's file."""
    config, chance = configured(), random.Random(0)
    state = begun(config)
    save(tmp_path, config, state)
    touch(state, chance, 1500)
    old = save(tmp_path, config, state)
    moments, (optimizer, metadata) = load_tensors(old.folder / MOMENTS)[0], load_tensors(old.folder / OPTIMIZER)
    save_tensors(optimizer | moments, old.folder / OPTIMIZER, metadata)
    (old.folder / MOMENTS).unlink()
    state = loaded(config, old)
    touch(state, chance, 1)
    expected = everything(state)
    assert equal(everything(loaded(config, save(tmp_path, config, state, whole=False))), expected)


def test_a_damaged_file_of_changes_is_named(tmp_path: Path) -> None:
    config = configured()
    state = begun(config)
    save(tmp_path, config, state)
    touch(state, random.Random(0), 9)
    checkpoint = save(tmp_path, config, state, whole=False)
    assert (checkpoint.folder / BASE).exists()
    path = checkpoint.changes()[0]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(EngramError, match=f"{path} is not a safetensors file, or is truncated"):
        loaded(config, checkpoint)
